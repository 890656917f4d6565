"""A model's own description of its inputs and outputs, and the checks that Core ML makes against it.

As Core ML does: a required feature that is missing is an error, features that the model does not know are ignored,
shapes must be the described one (or lie in the described range), and numbers of another type are converted to the
described one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdbuild.coreml.runtime.errors import RuntimeModelError

#: ArrayFeatureType.ArrayDataType numbers.
_DTYPES: dict[int, str] = {65568: "float32", 65600: "float64", 65552: "float16", 131104: "int32", 131080: "int8"}


@dataclass(frozen=True)
class Feature:
    """One input or output as the model describes it.

    Attributes:
        name: the feature's name.
        shape: the default shape; empty where the description leaves an output's shape open.
        dtype: the element type's NumPy name.
        description: the sentence that the metadata hold.
        enumerated_shapes: all shapes that are accepted, where they are listed.
        shape_range: the smallest and largest size of each dimension where they are bounded; the upper bound −1 is none.
        default: the value of an optional input that is not given, None for a required one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    description: str = ""
    enumerated_shapes: tuple[tuple[int, ...], ...] = ()
    shape_range: tuple[tuple[int, int], ...] = ()
    default: float | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape fits."""
        if self.enumerated_shapes:
            return shape in self.enumerated_shapes
        if self.shape_range:
            return len(shape) == len(self.shape_range) and all(
                low <= size and (high < 0 or size <= high)
                for size, (low, high) in zip(shape, self.shape_range, strict=True)
            )
        return shape == self.shape

    @property
    def expected(self) -> str:
        """The accepted shapes in words."""
        if self.enumerated_shapes:
            return "one of " + ", ".join(map(str, self.enumerated_shapes))
        if self.shape_range:
            sizes = [str(low) if low == high else f"{low}…{'' if high < 0 else high}" for low, high in self.shape_range]
            return f"({', '.join(sizes)})"
        return str(self.shape)


def read_features(descriptions: Any, where: str) -> tuple[Feature, ...]:
    """The features of a list of ``FeatureDescription`` messages.

    Raises:
        RuntimeModelError: a feature is an image, a dictionary or something else that is no array.
    """
    return tuple(_feature(description, where) for description in descriptions)


def _feature(message: Any, where: str) -> Feature:
    kind = message.type.WhichOneof("Type")
    if kind != "multiArrayType":
        raise RuntimeModelError(f"{where}: the feature {message.name} is a {kind}; this runtime handles arrays alone")
    array = message.type.multiArrayType
    dtype = _DTYPES.get(array.dataType)
    if dtype is None:
        raise RuntimeModelError(f"{where}: the feature {message.name} has the unknown array type {array.dataType}")
    default = None
    if message.type.isOptional:
        field = array.WhichOneof("defaultOptionalValue")
        default = float(getattr(array, field)) if field else 0.0
    enumerated = tuple(tuple(int(n) for n in item.shape) for item in array.enumeratedShapes.shapes)
    ranges = tuple((int(item.lowerBound), int(item.upperBound)) for item in array.shapeRange.sizeRanges)
    return Feature(
        message.name, tuple(int(n) for n in array.shape), dtype, message.shortDescription, enumerated, ranges, default
    )


def checked_inputs(
    features: tuple[Feature, ...], values: Mapping[str, NDArray[Any]], where: str
) -> dict[str, NDArray[Any]]:
    """The values of a model's inputs in the described types, after all checks.

    Raises:
        RuntimeModelError: an input is missing, has another shape, or cannot be converted.
    """
    missing = [feature.name for feature in features if feature.name not in values and feature.default is None]
    if missing:
        names = {feature.name for feature in features}
        unknown = sorted(set(values) - names)
        hint = f"; given but unknown: {', '.join(unknown)}" if unknown else ""
        raise RuntimeModelError(f"{where} needs the input {', '.join(missing)}, which is missing{hint}")
    return {feature.name: _checked(feature, values, where) for feature in features}


def _checked(feature: Feature, values: Mapping[str, NDArray[Any]], where: str) -> NDArray[Any]:
    if feature.name not in values:
        return np.full(feature.shape, feature.default, feature.dtype)
    value = values[feature.name]
    if not isinstance(value, np.ndarray):
        raise RuntimeModelError(f"{where}: the input {feature.name} is a {type(value).__name__}, not a NumPy array")
    if not feature.accepts(value.shape):
        raise RuntimeModelError(
            f"{where}: the input {feature.name} has the shape {value.shape}, expected {feature.expected}"
        )
    if value.dtype.kind not in "fiu":
        raise RuntimeModelError(
            f"{where}: the input {feature.name} has the type {value.dtype}, which does not convert to {feature.dtype}"
        )
    if feature.dtype.startswith("int") and value.size:
        bounds = np.iinfo(feature.dtype)
        if not (np.isfinite(value).all() and bounds.min <= value.min() and value.max() <= bounds.max):
            raise RuntimeModelError(f"{where}: the input {feature.name} holds values that {feature.dtype} cannot hold")
    return value


def to_tensor(feature: Feature, value: NDArray[Any]) -> Tensor:
    """A checked input as a run-time tensor.

    Values that float16 cannot hold exactly are kept as they are here: whether half precision is emulated is the
    program's matter.
    """
    integral = feature.dtype.startswith("int")
    return torch.from_numpy(np.array(value, dtype=feature.dtype if integral else np.float32, order="C"))


def to_array(feature: Feature, value: Tensor, *, half: bool) -> NDArray[Any]:
    """An output in the described type; float16 is widened to float32 unless `half` precision is emulated."""
    dtype = "float32" if feature.dtype == "float16" and not half else feature.dtype
    return np.array(value.numpy(), dtype=dtype, order="C")
