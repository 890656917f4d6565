"""Which kind of change the tensors of one module are, and by what they are multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, prod

from sdbuild.checkpoints.checkpoint import StoredTensor
from sdbuild.checkpoints.lora.changes import (
    Added,
    Change,
    Difference,
    EmbeddingLowRank,
    Generalized,
    Hadamard,
    Kronecker,
    LowRank,
    Replacement,
    Shape,
    rank_of,
    rank_of_generalized,
)
from sdbuild.checkpoints.lora.rotations import Rotation, Scaling
from sdbuild.checkpoints.lora.settings import Settings
from sdbuild.errors import SdbuildError

_ADDED: tuple[type[Added], ...] = (
    LowRank,
    EmbeddingLowRank,
    Hadamard,
    Kronecker,
    Generalized,
    Difference,
    Replacement,
)
_KINDS: tuple[type[Added] | type[Rotation] | type[Scaling], ...] = (Scaling, Rotation, *_ADDED)
_BIASES = ("bias_difference", "norm_bias_difference", "up_bias", "bias")
_MAGNITUDES = ("magnitude", "dora_scale")
# What stands beside a kind's own tensors.
_BESIDE = ("alpha", *_MAGNITUDES)

Parts = dict[str, StoredTensor]


class AdapterError(SdbuildError):
    """A module's tensors are no change that is known."""


@dataclass(frozen=True)
class Module:
    """A module as a file calls it.

    Attributes:
        name: the file's own name of it.
        component: whose module it is.
        inner: its name in that component.
        parts: part → tensor.
        settings: what is said beside the tensors.
        place: the file that it is in.
    """

    name: str
    component: str
    inner: str
    parts: Mapping[str, StoredTensor] = field(repr=False)
    settings: Settings
    place: str = ""


def module_changes(module: Module, shapes: Mapping[str, Shape | None], strength: float) -> dict[str, Change]:
    """The changes of a module's `weight` and `bias`, as far as it has any.

    Args:
        module: the module.
        shapes: of its weight and its bias, those that the component has.
        strength: the recipe's weight.

    Raises:
        AdapterError: its tensors are not those of one kind, or something of them is not known.
    """
    found: dict[str, Change] = {}
    for name, change in _changes(module, dict(module.parts), shapes, strength):
        if name in found:
            raise AdapterError(f"{module.name} holds two changes of its {name}: only one can count")
        found[name] = change
    return found


def _changes(
    module: Module, parts: Parts, shapes: Mapping[str, Shape | None], strength: float
) -> Iterator[tuple[str, Change]]:
    for name in _BIASES:
        if name in parts:
            tensor = {name: parts.pop(name)}
            if name == "bias":
                yield "bias", Replacement(tensor, 1.0, strength)
            else:
                scale = _scale(module, dict(module.parts)) if name == "up_bias" else 1.0
                yield "bias", Difference(tensor, scale, strength)
    if "weight" in parts and "on_input" not in parts:
        yield "weight", Replacement({"weight": parts.pop("weight")}, 1.0, strength)
    if not parts:
        return
    own = {name: tensor for name, tensor in parts.items() if name not in _BESIDE}
    if not own:
        raise AdapterError(f"{module.name}.{next(iter(parts))} belongs to no change of a weight")
    kind = _kind(module, own)
    magnitude = parts.get("magnitude", parts.get("dora_scale"))
    if magnitude is not None and (not issubclass(kind, Added) or kind in (Generalized, Difference, Replacement)):
        raise AdapterError(f"{module.name} is {kind.kind} with a magnitude of DoRA, which is not known")
    if kind is Scaling:
        of_inputs = _is_of_inputs(module, own, shapes.get("weight"))
        yield "weight", Scaling(own, strength, of_inputs)
        if not of_inputs and "ia3" in own and "bias" in shapes:
            # peft scales what a layer gives, and so its bias too.
            yield "bias", Scaling(own, strength, of_inputs)
    elif kind is Rotation:
        yield "weight", Rotation(own, _number(module, parts["alpha"]) if "alpha" in parts else 0.0, strength)
    else:
        assert issubclass(kind, Added)
        if magnitude is None and module.settings.uses_dora and kind in (LowRank, EmbeddingLowRank):
            raise AdapterError(f"{module.name} has no magnitude, and the settings say that DoRA is used")
        rows = (shapes.get("weight") or (0,))[0]
        along_rows = "magnitude" in parts or (magnitude is not None and magnitude.shape[:1] == (rows,))
        yield "weight", kind(own, _scale(module, parts), strength, magnitude, along_rows)


def _kind(module: Module, own: Parts) -> type[Added] | type[Rotation] | type[Scaling]:
    """The one kind that has exactly these tensors."""
    for kind in _KINDS:
        if any(needed <= own.keys() <= needed | kind.optional for needed in kind.required):
            return kind
    if own.keys() <= {"down", "up", "mid"}:
        raise AdapterError(f"{module.name} has half a pair. Download it again, or give another LoRA")
    near = [kind.kind for kind in _KINDS if any(needed & own.keys() for needed in kind.required)]
    if len(near) > 1:
        several = " and of ".join(dict.fromkeys(near))
        raise AdapterError(f"{module.name} holds parts of {several} ({', '.join(own)}): only one can count")
    raise AdapterError(f"{module.name} holds {', '.join(own)}, which is not all of {near[0] if near else 'a change'}")


def _is_of_inputs(module: Module, own: Parts, shape: Shape | None) -> bool:
    """Whether factors are the inputs'."""
    if "on_input" in own:
        return bool(_number(module, own["on_input"], "on_input"))
    stated, factors = module.settings.is_feed_forward(module.inner), own["ia3"].shape
    if stated is not None:
        return stated
    if len(factors) == 2:
        # peft's linear layers have (1, inputs) or (outputs, 1).
        return factors[0] == 1 and factors[1] > 1
    if shape is not None and shape[0] != shape[1]:
        return prod(factors) == shape[1]
    raise AdapterError(
        f"{module.name}: nothing says whether its factors are of inputs or of outputs; put the adapter_config.json "
        "with its feedforward_modules beside the file"
    )


def _scale(module: Module, parts: Parts) -> float:
    """α/r, by the tensor beside the factors, else by the settings, else 1."""
    alpha = parts.get("alpha")
    rank = rank_of_generalized(parts) if "a1" in parts else rank_of(parts)
    is_whole = "lokr_w1" in parts and "lokr_w2" in parts
    stated = module.settings.scale(module.inner, rank) if rank is not None or is_whole else None
    if alpha is None:
        return 1.0 if stated is None else stated
    value = _number(module, alpha)
    if rank is None:
        # LyCORIS takes no α where both factors of LoKr are whole, nor with a full difference.
        return 1.0
    if value == 0:
        raise AdapterError(
            f"{module.name}.alpha is 0, by which some programs mean no scale and others no change. Give a file that "
            "says it"
        )
    if stated is not None and abs(stated - value / rank) > 1e-6 * abs(stated):
        raise AdapterError(
            f"{module.name} has α/r = {value / rank:g} by its own tensor and {stated:g} by the settings beside it. "
            "Take one of them out"
        )
    return value / rank


def _number(module: Module, tensor: StoredTensor, part: str = "alpha") -> float:
    if prod(tensor.shape) != 1 or not isfinite(value := float(tensor.read().reshape(-1)[0])):
        raise AdapterError(f"{module.name}.{part}, of shape {tensor.shape}, is no number")
    return value
