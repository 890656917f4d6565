"""A bundle's models, loaded: the reference runtime, Core ML on packages, or Core ML on compiled models."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from sdbuild.interface.swift.files import COMPILED, PACKAGE
from sdbuild.pipeline.errors import PipelineError
from sdbuild.tensors import TensorSpec

Precision = Literal["fp32", "fp16"]
Backend = Literal["torch", "coreml"]


class FeatureLike(Protocol):
    """An input as a model describes it."""

    @property
    def name(self) -> str:
        """The feature's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The default shape."""


class RunnableModel(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> Sequence[FeatureLike]:
        """What it takes."""

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run it once."""


def load_model(
    path: Path, inputs: Sequence[TensorSpec], *, precision: Precision, backend: Backend, compute_unit: Any
) -> RunnableModel:
    """Load a package or a compiled model.

    Args:
        path: an `.mlpackage` or `.mlmodelc` directory.
        inputs: what `bundle.json` says that the model takes.
        precision: arithmetic of the reference runtime.
        backend: the reference runtime, or Core ML on a Mac.
        compute_unit: the processors that Core ML may use.

    Raises:
        PipelineError: a compiled model, and no Core ML to run it.
        RuntimeModelError: the package cannot be read, or holds what the runtime does not know.
    """
    if path.suffix == COMPILED:
        if backend == "torch":
            raise PipelineError(
                f"{path} is compiled: Core ML alone runs that, on a Mac with backend=coreml; the torch backend runs "
                f"bundles of {PACKAGE}s"
            )
        return CompiledModel(path, inputs, compute_unit)
    from sdbuild.coreml.runtime import Model

    model: RunnableModel = Model(path, precision, backend=backend, compute_unit=compute_unit)
    return model


class CompiledModel:
    """A compiled model, run by Core ML.

    Attributes:
        inputs: what it takes.
    """

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], compute_unit: str) -> None:
        """Load the model.

        Raises:
            PipelineError: this is no Mac.
        """
        if platform.system() != "Darwin":
            raise PipelineError(
                f"{path.name}: the coreml backend needs macOS; the torch backend runs {PACKAGE}s anywhere"
            )
        import coremltools

        self.inputs = tuple(inputs)
        units = coremltools.ComputeUnit[compute_unit]
        self._model = coremltools.models.CompiledMLModel(str(path), compute_units=units)

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run it once; numbers are converted to the types that the model declares."""
        values = {spec.name: inputs[spec.name].astype(spec.dtype) for spec in self.inputs}
        outputs: dict[str, NDArray[Any]] = self._model.predict(values)
        return outputs
