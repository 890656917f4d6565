"""The variables of `generate` (`prompt=… seed=… image=… …`) as checked values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.paths import user_path
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.options import BUILD_VARIABLES

if TYPE_CHECKING:
    from PIL import Image

    from sdbuild.pipeline import Request

    Named = tuple[tuple[str | None, Image.Image], ...]

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
WORDS = ("client", "negative_prompt", "scheduler", "rng")
SWITCHES = ("safety", "reduce_memory")
PRECISIONS, BACKENDS = ("fp32", "fp16"), ("torch", "coreml")
COMPUTE_UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")


@dataclass(frozen=True)
class DrawOptions:
    """What to draw, and with what.

    Attributes:
        prompts: one or more.
        request: everything about the pictures but the pictures of ControlNets and T2I-Adapters.
        controls: ControlNets' pictures, each with the name that was given, or None.
        adapters: T2I-Adapters' pictures, likewise.
        adapter_weights: what the T2I-Adapters' features are multiplied with: one for all, or one for each picture.
        running: the arguments of `Pipeline.from_bundle`.
        pictures: the folder for PNG files.
    """

    prompts: tuple[str, ...]
    request: "Request"
    controls: "Named"
    adapters: "Named"
    adapter_weights: tuple[float, ...]
    running: Mapping[str, Any]
    pictures: Path


def parse_draw_options(variables: Mapping[str, str], command: str) -> DrawOptions:
    """Check a command line's variables, files included, before anything is built.

    Raises:
        PlanError: an unknown variable, or a value that is none.
        RequestError: a request that makes no sense, or a picture that cannot be read.
    """
    for name, value in variables.items():
        if not value and name not in _MAY_BE_EMPTY and name not in BUILD_VARIABLES:
            raise PlanError(f"'{name}=' has no value; write {name}=VALUE or leave it out")
    from sdbuild.pipeline.pictures import open_picture
    from sdbuild.pipeline.request import Request

    adapter_weights = _weights(variables)
    fields: dict[str, Any] = {name: variables[name] for name in WORDS if name in variables}
    fields |= {name: _number(name, variables[name]) for name in NUMBERS if name in variables}
    switches = {name: _choice(variables, name, tuple(_SWITCH)) for name in SWITCHES if name in variables}
    if "safety" in switches:
        fields["safety"] = _SWITCH[switches.pop("safety")]
    if "configuration" in variables:
        fields["configuration"] = dict(map(_setting, variables["configuration"].split(",")))
    if "image" in variables:
        fields["image"] = open_picture(user_path(variables["image"]))
    elif "strength" in variables:
        raise PlanError("strength= says how much of image=FILE is drawn anew; there is no image=")
    running: dict[str, Any] = {name: _SWITCH[value] for name, value in switches.items()}
    for name, known in (("precision", PRECISIONS), ("backend", BACKENDS), ("compute_unit", COMPUTE_UNITS)):
        if name in variables:
            running[name] = _choice(variables, name, known)
    return DrawOptions(
        prompts=_prompts(variables, command),
        request=Request(**fields),
        controls=_named(variables.get("controlnet_image", "")),
        adapters=_named(variables.get("adapter_image", "")),
        adapter_weights=adapter_weights,
        running=running,
        pictures=user_path(variables.get("pictures", "pictures")),
    )


@dataclass(frozen=True)
class Kind:
    """Models that take pictures: how a message calls one, the variable for pictures, and a recipe's list."""

    title: str
    variable: str
    key: str


CONTROLNETS = Kind("ControlNet", "controlnet_image", "controlnets")
T2I_ADAPTERS = Kind("T2I-Adapter", "adapter_image", "t2i_adapters")


def conditioned(options: DrawOptions, controlnets: tuple[str, ...], t2i_adapters: tuple[str, ...]) -> "Request":
    """The request with the pictures of a bundle's ControlNets and T2I-Adapters.

    Raises:
        PlanError: pictures and models do not go together.
        RequestError: weights and pictures do not.
    """
    weights = options.adapter_weights
    return replace(
        options.request,
        controlnet_images=by_name(options.controls, controlnets, CONTROLNETS),
        adapter_images=by_name(options.adapters, t2i_adapters, T2I_ADAPTERS),
        adapter_conditioning_scale=weights[0] if len(weights) == 1 else weights,
    )


def by_name(pictures: "Named", known: tuple[str, ...], kind: Kind) -> dict[str, "Image.Image"]:
    """Pictures by model; those without a name go to the bundle's models in the recipe's order.

    Raises:
        PlanError: more pictures than models, two for one, or some with a name and some without.
    """
    names = [name for name, _ in pictures if name is not None]
    if names and len(names) < len(pictures):
        raise PlanError(f"{kind.variable}: give all of them names (NAME:FILE), or none")
    if len(set(names)) < len(names):
        raise PlanError(f"{kind.variable}: one {kind.title} has two pictures")
    if not names and len(pictures) > len(known):
        listed = ", ".join(known) or f"none; list them under {kind.key}: in the recipe"
        raise PlanError(
            f"{kind.variable}: {len(pictures)} pictures for {len(known)} {kind.title}s\n  there is {listed}"
        )
    return {name or known[index]: picture for index, (name, picture) in enumerate(pictures)}


def _setting(written: str) -> tuple[str, float | str]:
    """`NAME:VALUE` of the Swift package's configuration; what is no number is a word."""
    name, colon, value = written.partition(":")
    if not colon:
        raise PlanError(f"configuration={written}: write NAME:VALUE, such as originalSize:1024")
    try:
        return name, float(value)
    except ValueError:
        return name, value


def _named(written: str) -> "Named":
    return tuple(_control(item) for item in written.split(",") if item)


def _weights(variables: Mapping[str, str]) -> tuple[float, ...]:
    """One weight for all T2I-Adapters, or one for each picture."""
    name = "adapter_conditioning_scale"
    if name in variables and "adapter_image" not in variables:
        raise PlanError(f"{name}= weighs what adapter_image=FILE gives; there is no adapter_image=")
    try:
        return tuple(float(weight) for weight in variables.get(name, "1").split(","))
    except ValueError:
        raise PlanError(f"{name}={variables[name]}: a number is needed, or one for each picture, with commas") from None


def _prompts(variables: Mapping[str, str], command: str) -> tuple[str, ...]:
    if ("prompt" in variables) == ("prompts" in variables):
        raise PlanError(f'{command}: give either prompt="…" or prompts=FILE, a file with a prompt a line')
    if "prompt" in variables:
        return (variables["prompt"],)
    path = user_path(variables["prompts"])
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
        return None, open_picture(user_path(item))
    return name, open_picture(user_path(file))
