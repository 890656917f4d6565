"""Convert a torch module without weights into a Core ML package, streaming the weights from the checkpoint.

The program and the weights are those of the stock path (`torch.export` with real float32 weights, then
`coremltools.convert`), to the bit. No weight is in memory while the graph is exported and optimised: constants are
placeholders (see `sdbuild.coreml.lowering.deferred`), and at the end each weight goes from the memory-mapped checkpoint
through its cast and reshape straight into the weight file.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.coreml.metadata import ModelMetadata, write_metadata
from sdbuild.coreml.package import write_package
from sdbuild.tensors import TensorSpec, Weight

if TYPE_CHECKING:
    import torch

__all__ = ["ConversionError", "ConversionReport", "ModelMetadata", "convert"]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        package: the package that was written.
        modules: the file that maps each operation's output to the torch module it came from.
        operations: how many operations of each type the program holds, constants left out.
        weight_bytes: bytes of weights.
        readings: how many elements graph passes looked into, by the place that asked.
    """

    package: Path
    modules: Path
    operations: Mapping[str, int]
    weight_bytes: int
    readings: Mapping[str, int]


def convert(
    module: torch.nn.Module,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weights: Mapping[str, Weight],
    out: Path,
    *,
    precision: Literal["float16", "float32"],
    deployment_target: str,
    float32_modules: Sequence[str] = (),
    metadata: ModelMetadata | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> ConversionReport:
    """Convert a module to an ML Program package.

    Args:
        module: on the meta device, in evaluation mode; `forward` takes the inputs in order and returns a tuple of the
            outputs in order.
        inputs: names, shapes and element types; a float32 package declares every float input as float32.
        outputs: names and descriptions; every output is float32.
        weights: a checkpoint tensor for each parameter and buffer that is on the meta device, by its name in the
            module's `state_dict()`.
        out: the `.mlpackage` to create. `modules.json` is written beside it.
        precision: the element type of weights and computation.
        deployment_target: ``iOS16``, ``iOS17`` or ``iOS18``.
        float32_modules: dotted paths of modules whose operations compute in float32 in a float16 package.
        metadata: texts for the model's description.
        progress: called with the fraction that is done and what is being done.

    Raises:
        ConversionError: a weight is missing, has another shape than the module's parameter or does not fit float16.
    """
    from sdbuild.coreml.lowering import deferred, export, frontend, program

    with _without_garbage_collection():
        progress(0.0, "exporting the graph")
        exported = export.export(module, inputs, len(outputs))
        paths = export.module_paths(exported)
        progress(0.3, "lowering to an ML Program")
        lowered = frontend.lower(
            exported,
            inputs,
            outputs,
            weights,
            precision=precision,
            deployment_target=deployment_target,
            keep_float32=_selector(paths, float32_modules),
        )
        del exported
    progress(0.7, "writing weights")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".convert-") as scratch:
        weight_file = Path(scratch) / "weight.bin"
        sizes: list[int] = []
        model = program.to_model(lowered, weight_file, deployment_target, sizes.append)
        write_metadata(model, metadata or ModelMetadata(), inputs, outputs)
        write_package(out, model, weight_file if sizes else None)
    operations = [op for op in lowered.functions["main"].operations if op.op_type != "const"]
    modules = out.with_name("modules.json")
    modules.write_text(json.dumps(_module_of_outputs(operations, paths), indent=0) + "\n", encoding="utf-8")
    progress(1.0, "converted")
    asked: Counter[str] = Counter()
    for reading in deferred.readings:
        asked[reading.place] += reading.elements
    return ConversionReport(out, modules, Counter(op.op_type for op in operations), sum(sizes), asked)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Let graphs grow undisturbed.

    They have some ten thousand nodes, and nearly all are kept; searching them for garbage over and over takes a fifth
    of the time and finds next to nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _selector(paths: Sequence[str], float32_modules: Sequence[str]) -> Callable[[Any], bool] | None:
    """Whether an operation belongs to a module that stays float32."""
    if not float32_modules:
        return None
    kept = {
        number
        for number, path in enumerate(paths)
        if any(path == module or path.startswith(module + ".") for module in float32_modules)
    }
    return lambda op: _module_number(op) in kept


def _module_number(op: Any) -> int | None:
    from coremltools.converters.mil.mil.scope import ScopeSource

    handle = op.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE)
    return handle[0] if handle else None


def _module_of_outputs(operations: Sequence[Any], paths: Sequence[str]) -> dict[str, str]:
    modules = {}
    for op in operations:
        number = _module_number(op)
        if number is not None:
            modules.update({output.name: paths[number] for output in op.outputs})
    return modules
