"""The variables of `generate` (`prompt=… seed=… image=… …`) as checked values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.options import BUILD_VARIABLES, check_variables

if TYPE_CHECKING:
    from PIL import Image

    from sdbuild.pipeline import Request

_MAY_BE_EMPTY = ("prompt", "negative_prompt")
_SWITCH = {"on": True, "off": False}

NUMBERS: Mapping[str, Callable[[str], Any]] = {
    "steps": int,
    "guidance_scale": float,
    "seed": int,
    "image_count": int,
    "strength": float,
    "controlnet_scale": float,
    "refiner_start": float,
}
WORDS = ("negative_prompt", "scheduler", "generator")
SWITCHES = ("safety", "reduce_memory")
PRECISIONS, BACKENDS = ("fp32", "fp16"), ("torch", "coreml")
COMPUTE_UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")

DRAW_VARIABLES = (
    *("recipe", "target", "prompt", "prompts", "negative_prompt", "steps", "guidance_scale", "seed", "image_count"),
    *("scheduler", "generator", "image", "strength", "controlnet_image", "controlnet_scale", "refiner_start", "safety"),
    *("precision", "backend", "compute_unit", "reduce_memory", "pictures", "source", "out", "verify"),
)


@dataclass(frozen=True)
class DrawOptions:
    """What to draw, and with what.

    Attributes:
        prompts: one or more.
        request: everything about the pictures but ControlNets' pictures.
        controls: ControlNets' pictures, each with the name that was given, or None.
        running: the arguments of `Pipeline.from_bundle`.
        pictures: the folder for PNG files.
    """

    prompts: tuple[str, ...]
    request: "Request"
    controls: tuple[tuple[str | None, "Image.Image"], ...]
    running: Mapping[str, Any]
    pictures: Path


def parse_draw_options(variables: Mapping[str, str], command: str) -> DrawOptions:
    """Check a command line's variables, files included, before anything is built.

    Raises:
        PlanError: an unknown variable, or a value that is none.
        RequestError: a request that makes no sense, or a picture that cannot be read.
    """
    check_variables(variables, DRAW_VARIABLES, command)
    for name, value in variables.items():
        if not value and name not in _MAY_BE_EMPTY and name not in BUILD_VARIABLES:
            raise PlanError(f"'{name}=' has no value; write {name}=VALUE or leave it out")
    from sdbuild.pipeline.pictures import open_picture
    from sdbuild.pipeline.request import Request

    fields: dict[str, Any] = {name: variables[name] for name in WORDS if name in variables}
    fields |= {name: _number(name, variables[name]) for name in NUMBERS if name in variables}
    switches = {name: _choice(variables, name, tuple(_SWITCH)) for name in SWITCHES if name in variables}
    if "safety" in switches:
        fields["safety"] = _SWITCH[switches.pop("safety")]
    if "image" in variables:
        fields["image"] = open_picture(Path(variables["image"]).expanduser())
    elif "strength" in variables:
        raise PlanError("strength= says how much of image=FILE is drawn anew; there is no image=")
    running: dict[str, Any] = {name: _SWITCH[value] for name, value in switches.items()}
    for name, known in (("precision", PRECISIONS), ("backend", BACKENDS), ("compute_unit", COMPUTE_UNITS)):
        if name in variables:
            running[name] = _choice(variables, name, known)
    return DrawOptions(
        prompts=_prompts(variables, command),
        request=Request(**fields),
        controls=tuple(_control(item) for item in variables.get("controlnet_image", "").split(",") if item),
        running=running,
        pictures=Path(variables.get("pictures", "pictures")).expanduser(),
    )


def named_controls(
    controls: tuple[tuple[str | None, "Image.Image"], ...], known: tuple[str, ...]
) -> dict[str, "Image.Image"]:
    """Pictures by ControlNet; those without a name go to the bundle's ControlNets in the recipe's order.

    Raises:
        PlanError: more pictures than ControlNets, two for one, or some with a name and some without.
    """
    names = [name for name, _ in controls if name is not None]
    if names and len(names) < len(controls):
        raise PlanError("controlnet_image: give all of them names (NAME:FILE), or none")
    if len(set(names)) < len(names):
        raise PlanError("controlnet_image: one ControlNet has two pictures")
    if not names and len(controls) > len(known):
        listed = ", ".join(known) or "none; list them under controlnets: in the recipe"
        raise PlanError(f"controlnet_image: {len(controls)} pictures for {len(known)} ControlNets\n  there is {listed}")
    return {name or known[index]: picture for index, (name, picture) in enumerate(controls)}


def _prompts(variables: Mapping[str, str], command: str) -> tuple[str, ...]:
    if ("prompt" in variables) == ("prompts" in variables):
        raise PlanError(f'{command}: give either prompt="…" or prompts=FILE, a file with a prompt a line')
    if "prompt" in variables:
        return (variables["prompt"],)
    path = Path(variables["prompts"]).expanduser()
    try:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"prompts={path}: cannot be read ({error}); it is a text file with a prompt a line") from error
    if not lines:
        raise PlanError(f"prompts={path}: there is no prompt in it")
    return lines


def _number(name: str, value: str) -> Any:
    try:
        return NUMBERS[name](value)
    except ValueError:
        kind = "whole number" if NUMBERS[name] is int else "number"
        raise PlanError(f"{name}={value}: a {kind} is needed") from None


def _choice(variables: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = variables[name]
    if value not in known:
        raise PlanError(f"{name}={value}: write {' or '.join(known)}{nearest(value, known)}")
    return value


def _control(item: str) -> tuple[str | None, "Image.Image"]:
    from sdbuild.pipeline.pictures import open_picture

    name, colon, file = item.partition(":")
    if not colon or Path(item).exists():
        return None, open_picture(Path(item).expanduser())
    return name, open_picture(Path(file).expanduser())
