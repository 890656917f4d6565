"""Small packages written by coremltools itself, for the tests of what transforms packages."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import types

DEFAULT_WEIGHTS = {
    "conv": (64, 8, 3, 3),
    "table": (96, 64),
    "linear": (64, 64),
    "right": (64, 64),
    "plane": (1, 64, 8, 8),
}


def weights(seed: int = 0, **changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in DEFAULT_WEIGHTS.items()}
    return values | changes


def package(
    out: Path, target: str = "iOS16", precision: str = "FLOAT16", values: dict[str, np.ndarray] | None = None
) -> Path:
    """A convolution, an embedding with a linear layer and a matmul, and their sum; two inputs, one output."""
    held = values or weights()
    bias = np.random.default_rng(99).standard_normal(64).astype(np.float32)
    opset = ct.target[target]

    @mb.program(
        input_specs=[mb.TensorSpec((1, 8, 8, 8)), mb.TensorSpec((1, 4), dtype=types.int32)], opset_version=opset
    )
    def program(x, ids):
        picture = mb.conv(x=x, weight=mb.const(val=held["conv"], name="conv"), bias=bias, pad_type="same")
        token = mb.gather(x=mb.const(val=held["table"], name="table"), indices=ids, axis=0)
        token = mb.linear(x=token, weight=mb.const(val=held["linear"], name="linear"))
        token = mb.matmul(x=token, y=mb.const(val=held["right"], name="right"))
        token = mb.reshape(x=mb.reduce_sum(x=token, axes=[1]), shape=[1, 64, 1, 1])
        total = mb.add(x=mb.relu(x=picture), y=token)
        total = mb.add(x=total, y=mb.const(val=held["plane"], name="plane"))
        return mb.silu(x=total, name="out")

    model = ct.convert(
        program, minimum_deployment_target=opset, compute_precision=ct.precision[precision], skip_model_load=True
    )
    model.save(str(out))
    return out
