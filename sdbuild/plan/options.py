"""The variables of a command line (`recipe=… target=… source=… out=… verify=off`) as one checked value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.checkpoints.single_file import SUFFIXES
from sdbuild.paths import user_path
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.libraries import find_in_library
from sdbuild.recipe.command_line import FIELDS, Setting, is_setting
from sdbuild.recipe.references import library_of

DEFAULT_RECIPE = "shapes"
DEFAULT_OUT = Path("build")
BUILD_VARIABLES = ("recipe", "target", "source", "out", "verify")


@dataclass(frozen=True)
class Options:
    """What to build.

    Attributes:
        recipe: a recipe's name, or the path of a YAML file.
        target: a single target to build for; None builds for all that the recipe lists.
        source: a local checkpoint, a directory or a single file, that takes the place of the recipe's model version.
        out: where bundles are put, absolute.
        verify: whether converted models are compared with the original ones.
        settings: fields of the recipe that the command line sets, by their dotted names, as written.
    """

    recipe: str
    target: str | None
    source: Path | None
    out: Path
    verify: bool
    settings: tuple[Setting, ...] = ()


def check_variables(variables: Iterable[str], known: Iterable[str], command: str) -> None:
    """Refuse variables that a command does not know, naming the nearest one that it does.

    Raises:
        PlanError: names the first unknown variable.
    """
    valid = tuple(known)
    for name in variables:
        if name not in valid and not ("recipe" in valid and is_setting(name)):
            listed = ", ".join(f"{word}=" for word in valid) if valid else "no variables"
            hint = nearest(name, valid)
            if "recipe" in valid:
                listed += ", and settings of the recipe, as quantization.unet=4"
                _, dot, rest = name.partition(".")
                hint = hint or nearest(name, [f"{field}{dot}{rest}" for field in FIELDS])
            raise PlanError(f"{command}: unknown variable '{name}='{hint}\n  it takes {listed}")


def parse_options(variables: Mapping[str, str], known: Iterable[str] = BUILD_VARIABLES, command: str = "") -> Options:
    """Check a command line's variables; relative paths are relative to the working directory.

    Raises:
        PlanError: an unknown variable, an empty value, a missing directory, or a switch that is neither on nor off.
    """
    check_variables(variables, known, command or "build")
    for name, value in variables.items():
        if not value:
            raise PlanError(f"'{name}=' has no value; write {name}=VALUE or leave it out")
    source = _source(variables["source"]) if "source" in variables else None
    if source is not None and not source.is_dir() and not (source.is_file() and source.suffix in SUFFIXES):
        raise PlanError(
            f"source={variables['source']}: no such directory, nor a {' or '.join(SUFFIXES)} file; "
            "give a checkpoint in diffusers' layout or in a single file"
        )
    verify = variables.get("verify", "on")
    if verify not in ("on", "off"):
        raise PlanError(f"verify={verify}: write verify=on or verify=off")
    return Options(
        recipe=variables.get("recipe", DEFAULT_RECIPE),
        target=variables.get("target"),
        source=source.absolute() if source is not None else None,
        out=(user_path(variables["out"]) if "out" in variables else DEFAULT_OUT).absolute(),
        verify=verify == "on",
        settings=tuple(item for item in variables.items() if is_recipe_setting(item[0], known)),
    )


def _source(stated: str) -> Path:
    """The local checkpoint that `source=` means."""
    return find_in_library(stated, "model") if library_of(stated) is not None else user_path(stated)


def is_recipe_setting(name: str, known: Iterable[str] = BUILD_VARIABLES) -> bool:
    """Whether a word sets something in the recipe, and is no variable of the command."""
    return name not in tuple(known) and is_setting(name)
