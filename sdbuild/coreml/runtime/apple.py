"""Prediction by Core ML itself, on a Mac."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sdbuild.coreml.runtime.errors import RuntimeModelError


class ApplePredictor:
    """Core ML behind the interface that `Model` needs."""

    def __init__(self, path: Path, compute_unit: str, function: str | None) -> None:
        if platform.system() != "Darwin":
            raise RuntimeModelError(f"{path.name}: the coreml backend needs macOS; the torch backend runs anywhere")
        import coremltools

        units = coremltools.ComputeUnit
        if compute_unit not in units.__members__:
            raise RuntimeModelError(
                f"there is no compute unit {compute_unit!r}; choose from {', '.join(units.__members__)}"
            )
        self._model = coremltools.models.MLModel(str(path), compute_units=units[compute_unit], function_name=function)

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs from inputs that have been checked."""
        result: dict[str, NDArray[Any]] = self._model.predict(dict(inputs))
        return result
