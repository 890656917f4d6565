"""Deferred constants behave as the arrays that they stand for, and read values only when nothing else will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sdbuild.coreml.lowering import deferred
from sdbuild.coreml.lowering.deferred import DeferredArray
from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.coreml.lowering.patches.numpy_constructors import keeping_deferred_arrays


@dataclass(frozen=True)
class Stored:
    """A weight in memory."""

    values: NDArray[Any] = field(compare=False)
    name: str = "block.weight"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> str:
        return self.values.dtype.name

    def read(self) -> NDArray[Any]:
        return self.values

    def done(self) -> None:
        return


def stored(shape: tuple[int, ...], dtype: str = "float32") -> Stored:
    values = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    values.flags.writeable = False
    return Stored(values)


def written(array: Any) -> NDArray[Any]:
    """What the weight file gets."""
    flat = np.concatenate([piece.reshape(-1).copy() for piece in array.source.pieces()])
    return flat.reshape(array.shape)


MOVES: list[Callable[[Any], Any]] = [
    lambda array: array.reshape(-1, array.shape[-1]),
    lambda array: np.reshape(array, (array.shape[0], -1)),
    lambda array: np.transpose(array),
    lambda array: array.transpose([*range(1, array.ndim), 0]),
    lambda array: np.expand_dims(array, 0),
    lambda array: np.expand_dims(array, [0, -1]),
    lambda array: np.squeeze(array),
    lambda array: array.swapaxes(0, -1),
    lambda array: array.astype(np.float16),
    lambda array: array.astype("float32"),
    lambda array: array * np.float32(0.25),
    lambda array: array / np.full((1,) * array.ndim, 3, array.dtype),
    lambda array: array[: max(1, array.shape[0] - 3)],
    lambda array: np.array(array).copy(),
]


@given(
    moves=st.lists(st.sampled_from(MOVES), max_size=6),
    dtype=st.sampled_from(["float16", "float32"]),
    rank=st.integers(2, 4),
)
@settings(max_examples=60, deadline=None)
def test_movements_stay_symbolic_and_give_the_same_bits(moves: list[Any], dtype: str, rank: int) -> None:
    weight = stored((37, 50, 2, 3)[:rank] if rank > 2 else (190, 64), dtype)
    actual: Any = DeferredArray.of(weight)
    expected = weight.values.astype(np.float32)
    with keeping_deferred_arrays():
        for move in moves:
            before = len(deferred.readings)
            moved = move(actual)
            if not isinstance(moved, DeferredArray):  # it became small enough to be computed at once
                return
            actual, expected = moved, move(expected)
            assert len(deferred.readings) == before
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(written(actual), expected)
    np.testing.assert_array_equal(actual.values(), expected)


@pytest.mark.parametrize(
    "operation",
    [
        np.max,
        np.abs,
        np.isfinite,
        lambda array: array.sum(axis=0),
        lambda array: array.tolist(),
        lambda array: np.concatenate([array, array]),
        lambda array: np.isclose(array, 0),
        lambda array: array > 0,
        lambda array: array.astype(np.int32),
        lambda array: np.ascontiguousarray(array),
        lambda array: array[array > 0],
        lambda array: bool(np.any(array != array * np.float32(2))),
        lambda array: array @ np.ones((array.shape[1], 1), np.float32),
    ],
)
def test_everything_else_sees_real_values(operation: Callable[[Any], Any]) -> None:
    weight = stored((9, 7))
    with keeping_deferred_arrays():
        actual = operation(DeferredArray.of(weight))
    assert not isinstance(actual, DeferredArray)
    np.testing.assert_array_equal(actual, operation(weight.values))
    assert deferred.readings[-1].weight == "block.weight"


def test_no_memory_is_taken() -> None:
    array = DeferredArray.of(stored((1,)))._build((1 << 20, 1 << 20), "float32", DeferredArray.of(stored((1,))).source)
    assert array.strides == (0, 0)
    assert array.reshape(-1).T.astype(np.float16).size == 1 << 40


def test_large_constants_are_compared_piece_by_piece() -> None:
    one, other = stored((1500, 1000)), stored((1000, 1500))
    turned = DeferredArray.of(Stored(np.ascontiguousarray(one.values.T)))
    assert np.allclose(DeferredArray.of(one), turned.T, rtol=0, atol=1e-12)
    assert not np.allclose(DeferredArray.of(one), DeferredArray.of(other).reshape(1500, 1000) * np.float32(1.5))


def test_a_copy_that_lost_its_origin_is_refused() -> None:
    base = np.ndarray.__getitem__(DeferredArray.of(stored((8, 8))), slice(2))
    with pytest.raises(AssertionError, match="loses its origin"):
        base.source  # noqa: B018


@pytest.mark.parametrize("value", [70000.0, -65505.0, np.inf, np.nan])
@pytest.mark.parametrize("size", [10, 100_000])
def test_what_does_not_fit_half_precision_is_named(value: float, size: int) -> None:
    values = np.zeros(size, np.float32)
    values[size // 2] = value
    array = DeferredArray.of(Stored(values, "up.1.conv.weight")).astype(np.float16)
    with pytest.raises(ConversionError, match=r"up\.1\.conv\.weight: values from .* do not fit float16"):
        written(array)


def test_an_infinity_in_a_half_checkpoint_is_named() -> None:
    values = np.zeros(4000, np.float16)
    values[7] = -np.inf
    with pytest.raises(ConversionError, match=r"block\.weight: values from -inf to 0"):
        written(DeferredArray.of(Stored(values)).astype(np.float16))


@pytest.mark.parametrize("size", [10, 200_000])
def test_rounding_is_to_nearest_even_and_keeps_subnormals(size: int) -> None:
    values = np.random.default_rng(0).integers(0, 0x477FE000, size, dtype=np.uint32).view(np.float32)
    np.testing.assert_array_equal(
        written(DeferredArray.of(Stored(values)).astype(np.float16)).view(np.uint16),
        values.astype(np.float16).view(np.uint16),
    )
