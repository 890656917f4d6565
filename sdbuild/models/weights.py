"""Which checkpoint tensor is which parameter: one to one, and every disagreement named at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from sdbuild.checkpoints.checkpoint import FLOATING, Checkpoint, StoredTensor
from sdbuild.models.errors import ModelError
from sdbuild.tensors import Weight


def map_weights(
    module: nn.Module,
    checkpoint: Checkpoint,
    rename: Callable[[str], str | None] = lambda name: name,
    given: Mapping[str, Weight] | None = None,
) -> dict[str, Weight]:
    """Find the stored tensor of every parameter and buffer of `module`.

    What the checkpoint holds besides is left out, as the libraries do; `sdbuild.checkpoints.account` says of each such
    tensor whether that is harmless.

    A stored tensor fits when its shape is the parameter's but for dimensions of size 1: a linear layer's (out, in) is
    a 1×1 convolution's (out, in, 1, 1), a norm's (C,) is (1, C, 1, 1).

    Args:
        module: the module, on any device; only names and shapes are looked at.
        checkpoint: the stored tensors.
        rename: a stored tensor's name → the parameter's, or None for a tensor that this module does not use.
        given: weights that are not in the checkpoint, or taken from it in another way, by parameter name.

    Raises:
        ModelError: names every tensor that is missing, doubled or of another shape, and then those left over.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    weights: dict[str, Weight] = dict(given or {})
    misshapen: set[str] = set()
    problems: list[str] = []
    surplus: list[str] = []
    for stored_name in checkpoint:
        name = rename(stored_name)
        if name is None or (given and name in given):
            continue
        tensor = checkpoint[stored_name]
        if name not in wanted:
            surplus.append(f"unexpected: {stored_name} {tensor.shape}")
        elif name in weights:
            problems.append(f"twice: {stored_name} is {name}, as is {weights[name].name}")
        elif tensor.dtype not in FLOATING:
            misshapen.add(name)
            problems.append(f"wrong type: {stored_name} is stored as {tensor.dtype}; weights are {', '.join(FLOATING)}")
        elif not _fits(tensor, wanted[name]):
            misshapen.add(name)
            problems.append(f"wrong shape: {stored_name} is {tensor.shape}, the configuration asks for {wanted[name]}")
        else:
            weights[name] = tensor.reshaped(wanted[name])
    missing = [f"missing: {name} {shape}" for name, shape in wanted.items() if name not in weights.keys() | misshapen]
    if missing or problems:
        raise ModelError(
            f"{checkpoint.location}: the weights do not fit the component's config.json:\n  "
            + "\n  ".join([*missing, *problems, *surplus])
            + "\nCheck that both come from the same model and revision."
        )
    # In the module's order, so that whoever streams them writes the same bytes each time.
    return {name: weights[name] for name in wanted}


def _fits(tensor: StoredTensor, shape: tuple[int, ...]) -> bool:
    return [size for size in tensor.shape if size != 1] == [size for size in shape if size != 1]
