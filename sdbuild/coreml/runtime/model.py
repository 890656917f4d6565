"""Load a Core ML package and predict with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from sdbuild.coreml.package import Package, PackageError, WeightFile
from sdbuild.coreml.runtime.apple import ApplePredictor
from sdbuild.coreml.runtime.audit import Audit
from sdbuild.coreml.runtime.description import checked_inputs, read_features, to_array, to_tensor
from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.program import Observer, Program

Precision = Literal["fp32", "fp16"]
Backend = Literal["torch", "coreml"]
ComputeUnit = Literal["ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"]

#: ML Program specification versions and the systems that introduced them.
SPECIFICATION_VERSIONS = {7: "iOS 16", 8: "iOS 17", 9: "iOS 18"}
_MODEL_PATH = "@model_path/"


class Model:
    """A Core ML package: one ML Program, one of its functions, or a pipeline of ML Programs.

    With the ``torch`` backend the program runs on this machine's CPU, in one of two precisions: ``fp32`` computes
    everything in float32 whatever the program declares, which shows faults of structure; ``fp16`` rounds each result
    that is declared half to half, which shows what a device sees. The ``coreml`` backend hands everything to Core ML
    and needs a Mac.

    Attributes:
        path: the package.
        inputs: the inputs as the model describes them.
        outputs: the outputs as the model describes them.
        operations: how often each operation occurs among those that run; empty with the ``coreml`` backend.
    """

    def __init__(
        self,
        path: Path | str,
        precision: Precision = "fp32",
        *,
        function: str | None = None,
        backend: Backend = "torch",
        compute_unit: ComputeUnit = "ALL",
    ) -> None:
        """Load a package.

        Args:
            path: an ``.mlpackage`` directory.
            precision: ``fp32`` or ``fp16``; the ``coreml`` backend decides by itself and takes no notice of it.
            function: the function to run; the package's default one if None.
            backend: ``torch`` or ``coreml``.
            compute_unit: the processors that the ``coreml`` backend may use.

        Raises:
            RuntimeModelError: the package cannot be read, or uses operations that this runtime lacks (all are named).
        """
        self.path = Path(path)
        if precision not in ("fp32", "fp16"):
            raise RuntimeModelError(f"there is no precision {precision!r}; choose fp32 or fp16")
        self._half = precision == "fp16"
        try:
            self._package = Package.open(self.path)
            spec = self._package.spec
        except PackageError as error:
            raise RuntimeModelError(str(error)) from error
        description = _function_description(spec.description, function, self.path)
        self.inputs = read_features(description.input, str(self.path))
        self.outputs = read_features(description.output, str(self.path))
        self.operations: dict[str, int] = {}
        self._programs: list[Program] = []
        self._apple: ApplePredictor | None = None
        if backend == "coreml":
            self._apple = ApplePredictor(self.path, compute_unit, function)
        elif backend == "torch":
            self._weight_files: dict[str, WeightFile] = {}
            self._programs = self._compile(spec, function, precision)
        else:
            raise RuntimeModelError(f"there is no backend {backend!r}; choose torch or coreml")
        for program in self._programs:
            for operation, count in program.operations.items():
                self.operations[operation] = self.operations.get(operation, 0) + count

    def predict(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        observe: Observer | None = None,
        audit: Audit | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Compute all outputs.

        Args:
            inputs: an array for each input. Features that the model does not know are ignored, as Core ML does; arrays
                of another number type are converted.
            observe: called after each operation with its output's name, the operation's type and the result.
            audit: collects the figures of each operation's results.

        Returns:
            Arrays of the described types; in ``fp32`` precision, float32 unrounded in the place of float16.

        Raises:
            RuntimeModelError: an input is missing, has a wrong shape or cannot be converted, or an operation fails.
        """
        values = checked_inputs(self.inputs, inputs, self.path.name)
        if self._apple is not None:
            if observe is not None or audit is not None:
                raise RuntimeModelError("Core ML shows no operations: observe and audit need the torch backend")
            return self._apple.predict(values)
        tensors = {feature.name: to_tensor(feature, values[feature.name]) for feature in self.inputs}
        for program in self._programs:
            wanted = {name: tensors[name] for name in program.inputs}
            tensors |= program.run(wanted, observe=observe, audit=audit)
        return {feature.name: to_array(feature, tensors[feature.name], half=self._half) for feature in self.outputs}

    def _compile(self, spec: Any, function: str | None, precision: Precision) -> list[Program]:
        kind = spec.WhichOneof("Type")
        specs = list(spec.pipeline.models) if kind == "pipeline" else [spec]
        names = (
            [f"{self.path.name}[{index}]" for index in range(len(specs))] if kind == "pipeline" else [self.path.name]
        )
        return [self._program(item, function, precision, name) for item, name in zip(specs, names, strict=True)]

    def _program(self, spec: Any, function: str | None, precision: Precision, where: str) -> Program:
        kind = spec.WhichOneof("Type")
        if kind != "mlProgram":
            raise RuntimeModelError(f"{where} is a {kind}; this runtime runs ML Programs and pipelines of them")
        if spec.specificationVersion not in SPECIFICATION_VERSIONS:
            known = ", ".join(f"{number} ({system})" for number, system in SPECIFICATION_VERSIONS.items())
            raise RuntimeModelError(
                f"{where} has the specification version {spec.specificationVersion}; this runtime knows {known}"
            )
        functions = spec.mlProgram.functions
        name = function or spec.description.defaultFunctionName or "main"
        if name not in functions:
            raise RuntimeModelError(f"{where} has no function {name}; it has {', '.join(sorted(functions))}")
        return Program(functions[name], self._weight_file, precision=precision, where=where)

    def _weight_file(self, reference: str) -> WeightFile:
        """The mapped file that a blob value names, such as ``@model_path/weights/weight.bin``."""
        if reference not in self._weight_files:
            path = self.path / "Data" / "com.apple.CoreML" / reference.removeprefix(_MODEL_PATH)
            if not path.is_file():
                raise RuntimeModelError(f"{self.path} lacks its weight file {reference.removeprefix(_MODEL_PATH)}")
            self._weight_files[reference] = WeightFile(path)
        return self._weight_files[reference]


def _function_description(description: Any, function: str | None, path: Path) -> Any:
    """The message that holds a function's inputs and outputs: its own in a package of several, else the model's."""
    if not description.functions:
        if function not in (None, "main"):
            raise RuntimeModelError(f"{path} has no function {function}; it has one alone")
        return description
    name = function or description.defaultFunctionName or "main"
    for candidate in description.functions:
        if candidate.name == name:
            return candidate
    known = ", ".join(sorted(candidate.name for candidate in description.functions))
    raise RuntimeModelError(f"{path} has no function {name}; it has {known}")
