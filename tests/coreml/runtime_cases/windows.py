"""Scatter modes, convolutions and pools."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.coreml.runtime_cases import Case, normal, t, uniform

IMAGE = normal(2, 4, 6, 5)
SCATTER = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def scattered(data: np.ndarray, index: Any, updates: np.ndarray, mode: str) -> np.ndarray:
    result = data.copy()
    if mode == "update":
        result[index] = updates
    else:
        SCATTER[mode].at(result, index, updates)
    return result


CASES: list[Case] = []
for _mode in ("update", *SCATTER):
    _rows = np.array([2, 0] if _mode == "update" else [2, 0, 2], np.int32)
    CASES += [
        Case(
            "scatter",
            {"data": normal(3, 4), "indices": _rows, "updates": uniform(len(_rows), 4)},
            {"axis": 0, "mode": _mode},
            lambda data, indices, updates, axis, mode: scattered(data, indices, updates, mode),
        ),
        Case(
            "scatter_nd",
            {
                "data": normal(3, 4),
                "indices": _rows[:, None] * np.array([[1, 1]], np.int32),
                "updates": uniform(len(_rows)),
            },
            {"mode": _mode},
            lambda data, indices, updates, mode: scattered(data, (indices[:, 0], indices[:, 1]), updates, mode),
        ),
    ]


def padded(x: np.ndarray, pad: list[tuple[int, int]]) -> torch.Tensor:
    return functional.pad(t(x), [n for pair in reversed(pad) for n in pair])


_w2, _bias = normal(6, 4, 3, 3), normal(6)
CASES += [
    Case("conv", {"x": IMAGE}, {"weight": _w2, "bias": _bias, "pad_type": "custom", "pad": [1, 1, 1, 1]},
         lambda x, **_: functional.conv2d(t(x), t(_w2), t(_bias), padding=1)),
    Case("conv", {"x": IMAGE}, {"weight": _w2, "pad_type": "custom", "pad": [0, 1, 0, 2], "strides": [2, 1]},
         lambda x, **_: functional.conv2d(padded(x, [(0, 1), (0, 2)]), t(_w2), stride=(2, 1))),
    Case("conv", {"x": IMAGE}, {"weight": normal(6, 2, 3, 2), "pad_type": "valid", "dilations": [1, 2], "groups": 2},
         lambda x, weight, **_: functional.conv2d(t(x), t(weight), dilation=(1, 2), groups=2)),
    Case("conv", {"x": IMAGE}, {"weight": normal(3, 4, 2, 2), "pad_type": "same"},
         lambda x, weight, **_: functional.conv2d(padded(x, [(0, 1), (0, 1)]), t(weight))),
    Case("conv", {"x": IMAGE}, {"weight": normal(3, 4, 2, 2), "pad_type": "same_lower"},
         lambda x, weight, **_: functional.conv2d(padded(x, [(1, 0), (1, 0)]), t(weight))),
    Case("conv", {"x": IMAGE}, {"weight": _w2, "pad_type": "same", "strides": [2, 2]},
         lambda x, **_: functional.conv2d(padded(x, [(0, 1), (1, 1)]), t(_w2), stride=2)),
    Case("conv", {"x": IMAGE}, {"weight": normal(7, 4, 1, 1), "bias": normal(7)},
         lambda x, weight, bias: functional.conv2d(t(x), t(weight), t(bias))),
    Case("conv", {"x": normal(2, 4, 9)}, {"weight": normal(5, 4, 3), "strides": [2]},
         lambda x, weight, **_: functional.conv1d(t(x), t(weight), stride=2)),
    Case("conv", {"x": normal(1, 2, 4, 4, 4)}, {"weight": normal(3, 2, 2, 2, 2)},
         lambda x, weight: functional.conv3d(t(x), t(weight))),
    Case("conv_transpose", {"x": IMAGE}, {"weight": normal(4, 3, 3, 3), "bias": normal(3), "strides": [2, 2]},
         lambda x, weight, bias, **_: functional.conv_transpose2d(t(x), t(weight), t(bias), stride=2)),
    Case("conv_transpose", {"x": IMAGE}, {"weight": normal(4, 3, 4, 4), "strides": [2, 2], "pad_type": "same"},
         lambda x, weight, **_: functional.conv_transpose2d(t(x), t(weight), stride=2, padding=1)),
    Case("conv_transpose", {"x": IMAGE}, {"weight": normal(4, 3, 3, 3), "strides": [2, 2], "pad_type": "custom",
                                          "pad": [1, 1, 1, 1], "output_shape": [2, 3, 12, 10]},
         lambda x, weight, **_: functional.conv_transpose2d(t(x), t(weight), stride=2, padding=1, output_padding=1)),
    Case("conv_transpose", {"x": normal(1, 4, 5)}, {"weight": normal(4, 2, 3), "groups": 2, "pad_type": "custom",
                                                    "pad": [1, 0]},
         lambda x, weight, **_: functional.conv_transpose1d(t(x), t(weight), groups=2)[..., 1:]),
    *(
        Case(op, {"x": IMAGE}, {"kernel_sizes": [2, 3], "strides": [2, 1], "pad_type": "valid"}, expected)
        for op, expected in (
            ("max_pool", lambda x, **_: functional.max_pool2d(t(x), (2, 3), (2, 1))),
            ("avg_pool", lambda x, **_: functional.avg_pool2d(t(x), (2, 3), (2, 1))),
            ("l2_pool", lambda x, **_: functional.lp_pool2d(t(x), 2, (2, 3), (2, 1))),
        )
    ),
    *(
        Case("avg_pool", {"x": IMAGE}, {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom",
                                        "pad": [1, 1, 1, 1], "exclude_padding_from_average": exclude,
                                        "ceil_mode": ceil},
             lambda x, e=exclude, c=ceil, **_: functional.avg_pool2d(t(x), 3, 2, 1, c, not e))
        for exclude in (True, False)
        for ceil in (True, False)
    ),
    Case("max_pool", {"x": IMAGE}, {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom",
                                    "pad": [1, 1, 1, 1], "ceil_mode": True},
         lambda x, **_: functional.max_pool2d(t(x), 3, 2, 1, ceil_mode=True)),
    Case("max_pool", {"x": IMAGE - 9}, {"kernel_sizes": [2, 2], "strides": [1, 1], "pad_type": "same"},
         lambda x, **_: functional.max_pool2d(functional.pad(t(x), (0, 1, 0, 1), value=-1e9), 2, 1)),
]  # fmt: skip
