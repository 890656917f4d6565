"""From a torch module on the meta device to an exported graph whose nodes know their module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sdbuild.coreml.lowering.patches import einsum, one_trace, quiet_trace, repeated, single_run
from sdbuild.tensors import TensorSpec

_DTYPES = {"float16": torch.float32, "float32": torch.float32, "int32": torch.int32}


def export(module: torch.nn.Module, inputs: Sequence[TensorSpec], results: int) -> Any:
    """Trace a module without running it.

    The graph is a float32 graph whatever the package's precision: coremltools promotes the scalars of a half-precision
    graph to float32 and cannot convert the mixture.

    Args:
        module: parameters and buffers on the meta device (buffers that the module computes itself may be real).
        inputs: the tensors that `forward` takes, in order.
        results: how many tensors `forward` returns.

    Returns:
        A `torch.export.ExportedProgram` of ATen operators.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        examples = tuple(torch.empty(spec.shape, dtype=_DTYPES[spec.dtype]) for spec in inputs)
    with _pretending_to_be_real(module, mode), quiet_trace.PATCH.applied(), torch.no_grad():
        return _trace(module, examples, results)


def _trace(module: torch.nn.Module, examples: tuple[torch.Tensor, ...], results: int) -> Any:
    """The graph of `torch.export.export(…).run_decompositions({})`, from one trace.

    The public way traces the module, and then traces the result twice more to make it functional. torch can also make
    it functional while it traces the module. Both graphs are the same but for checks of element types at run time,
    which the one trace does not record and which the lowering drops. A module that turns out to change an input in
    place is traced in two runs.
    """
    # What is known of einsums comes first: the one trace gives a rule to every operator that has none.
    with einsum.PATCH.applied(), one_trace.PATCH.applied() as trace:
        if trace is None:
            return torch.export.export(module, examples, strict=False).run_decompositions({})
        if single_run.PATCH.is_usable():
            try:
                with repeated.PATCH.applied(module) as stand_ins, single_run.PATCH.applied(results):
                    program = trace(module, examples)
                    if stand_ins is not None:
                        stand_ins.expand(program)
                    return program
            except (single_run.ImpureModuleError, repeated.UnrepeatableError):
                pass  # the whole is traced again
        return trace(module, examples)


@contextmanager
def _pretending_to_be_real(module: torch.nn.Module, mode: FakeTensorMode) -> Iterator[None]:
    """Let meta tensors claim to be on the CPU, as those of the stock path are.

    The device shapes the graph: the strides of some results differ between the CPU's kernels and the meta device's, and
    with them whether a reshape is traced as a view or as a copy.
    """
    stand_ins: dict[int, Any] = {}
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in stand_ins:
                    with mode:
                        fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    stand_ins[id(tensor)] = torch.nn.Parameter(fake, requires_grad=False) if is_parameter else fake
                replaced.append((tensors, name, tensor))
                tensors[name] = stand_ins[id(tensor)]
    try:
        yield
    finally:
        for tensors, name, tensor in replaced:
            tensors[name] = tensor


def module_paths(program: Any) -> list[str]:
    """Number the modules that nodes belong to, and note the number at each node.

    coremltools carries a node's `debug_handle`, an integer, through every pass to the operations that replace it.

    Returns:
        The dotted path of each module, at the position of its number.
    """
    numbers: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        stack = node.meta.get("nn_module_stack") or {"": ("", "")}
        path = list(stack.values())[-1][0]
        node.meta["debug_handle"] = numbers.setdefault(path, len(numbers))
    return list(numbers)
