"""Elementwise operations, activations, reductions, products and normalisations."""

from __future__ import annotations

import numpy as np
from torch.nn import functional

from tests.coreml.runtime_cases import RNG, Case, integers, normal, t, uniform

IMAGE = normal(2, 4, 6, 5)
MATRIX = normal(3, 4)
CASES: list[Case] = [
    *(Case(op, {"x": uniform(2, 3)}) for op in ("acos", "asin", "atan", "atanh", "cos", "cosh", "erf", "exp", "exp2")),
    *(Case(op, {"x": normal(2, 3) * 3}) for op in ("abs", "ceil", "floor", "round", "sign", "sin", "sinh", "square")),
    *(Case(op, {"x": uniform(2, 3)}) for op in ("sqrt", "tan", "tanh", "inverse", "log", "rsqrt")),
    Case("rsqrt", {"x": uniform(4)}, {"epsilon": np.float32(0.1)}),
    Case("threshold", {"x": normal(9)}, {"alpha": np.float32(0.2)}),
    Case("clip", {"x": normal(9)}, {"alpha": np.float32(-0.5), "beta": np.float32(0.5)}),
    *(Case("cast", {"x": normal(9) * 3}, {"dtype": dtype}) for dtype in ("int32", "bool", "fp32")),
    *(Case(op, {"x": normal(2, 1, 3), "y": normal(4, 1)}) for op in ("add", "sub", "mul", "real_div", "maximum")),
    *(Case(op, {"x": integers(-9, 9, 4, 3), "y": integers(1, 5, 3)}) for op in ("floor_div", "mod", "minimum", "add")),
    Case("mod", {"x": normal(6) * 4, "y": uniform(6)}),
    Case("pow", {"x": uniform(2, 3), "y": normal(3)}),
    *(
        Case(op, {"x": integers(0, 3, 4, 3), "y": integers(0, 3, 3)})
        for op in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
    ),
    *(
        Case(op, {}, {"x": RNG.random(6) > 0.5, "y": RNG.random(6) > 0.5})
        for op in ("logical_and", "logical_or", "logical_xor")
    ),
    Case(
        "select",
        {"a": normal(2, 3), "b": normal(3)},
        {"cond": np.array([[True, False, True]])},
        lambda a, b, cond: np.where(cond, a, b),
    ),
    Case("relu", {"x": normal(9)}),
    Case("relu6", {"x": normal(9) * 9}),
    *(Case(op, {"x": normal(9)}) for op in ("sigmoid", "softplus", "softsign")),
    Case("silu", {"x": normal(9)}, {}, lambda x: functional.silu(t(x))),
    Case("clamped_relu", {"x": normal(9)}, {"alpha": np.float32(0.3), "beta": np.float32(0.8)}),
    Case("linear_activation", {"x": normal(9)}, {"alpha": np.float32(0.3), "beta": np.float32(0.8)}),
    Case("scaled_tanh", {"x": normal(9)}, {"alpha": np.float32(0.3), "beta": np.float32(0.8)}),
    Case("sigmoid_hard", {"x": normal(9)}, {"alpha": np.float32(0.3), "beta": np.float32(0.4)}),
    *(Case(op, {"x": normal(9)}, {"alpha": np.float32(0.3)}) for op in ("elu", "leaky_relu", "thresholded_relu")),
    Case("prelu", {"x": normal(2, 4, 3, 2)}, {"alpha": normal(4)}),
    Case("softplus_parametric", {"x": normal(2, 4, 3, 2)}, {"alpha": normal(4), "beta": normal(4)}),
    *(
        Case("gelu", {"x": normal(20)}, {"mode": mode})
        for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
    ),
    *(Case("softmax", {"x": normal(2, 3, 4)}, {"axis": axis}) for axis in (-1, 1)),
    *(
        Case(op, {"x": uniform(2, 3, 4)}, {"axes": axes, "keep_dims": keep})
        for op in (
            "reduce_sum",
            "reduce_mean",
            "reduce_max",
            "reduce_min",
            "reduce_prod",
            "reduce_l1_norm",
            "reduce_l2_norm",
            "reduce_sum_square",
            "reduce_log_sum",
        )
        for axes, keep in (([1], False), ([0, -1], True))
    ),
    Case("reduce_log_sum_exp", {"x": normal(2, 3, 4)}, {"axes": [1, 2], "keep_dims": True}),
    Case("reduce_sum", {"x": integers(0, 9, 2, 3)}, {"axes": [0]}),
    *(Case(op, {"x": normal(2, 7)}, {"axis": 1, "keep_dims": False}) for op in ("reduce_argmax", "reduce_argmin")),
    *(
        Case("cumsum", {"x": normal(3, 4)}, {"axis": 1, "exclusive": exclusive, "reverse": backwards}, expected)
        for exclusive, backwards, expected in (
            (False, False, lambda x, **_: np.cumsum(x, 1)),
            (True, False, lambda x, **_: np.cumsum(x, 1) - x),
            (False, True, lambda x, **_: np.cumsum(x[:, ::-1], 1)[:, ::-1]),
            (True, True, lambda x, **_: np.cumsum(x[:, ::-1], 1)[:, ::-1] - x),
        )
    ),
    *(Case("argsort", {"x": normal(3, 5)}, {"axis": 1, "ascending": up}) for up in (True, False)),
    *(Case("topk", {"x": normal(3, 5)}, {"k": 2, "axis": 1, "ascending": up}) for up in (True, False)),
    Case("non_zero", {"x": integers(0, 2, 3, 4)}, {}, lambda x: np.transpose(np.nonzero(x))),
    Case("linear", {"x": normal(2, 3, 4)}, {"weight": normal(5, 4), "bias": normal(5)}),
    *(
        Case("matmul", {"x": normal(*x), "y": normal(*y)}, {"transpose_x": tx, "transpose_y": ty})
        for x, y, tx, ty in (
            ((2, 3, 4), (2, 4, 5), False, False),
            ((2, 4, 3), (5, 4), True, True),
            ((4,), (4, 5), False, False),
            ((2, 1, 3, 4), (6, 5, 4), False, True),
        )
    ),
    Case("einsum", {"values": (normal(2, 3, 4, 5), normal(2, 5, 4, 6))}, {"equation": "nchw,nwhu->nchu"}),
    Case("einsum", {"values": (normal(3, 4, 5), normal(5, 4, 6))}, {"equation": "chw,whr->chr"}),
    Case(
        "einsum",
        {"values": (normal(2, 3, 1, 5), normal(1, 5, 4, 6))},
        {"equation": "nchw,nwhu->nchu"},
        lambda values, equation: np.einsum(
            "nchw,nwhu->nchu",
            *np.broadcast_arrays(values[0], np.empty((2, 3, 4, 5)))[:1],
            np.broadcast_to(values[1], (2, 5, 4, 6)),
        ),
    ),
    Case("layer_norm", {"x": normal(2, 4, 3)}, {"axes": [2], "gamma": normal(3), "beta": normal(3)}),
    Case("layer_norm", {"x": normal(2, 4, 1, 3)}, {"axes": [1], "gamma": normal(4), "beta": normal(4)}),
    Case("layer_norm", {"x": normal(2, 4, 3)}, {"axes": [1, 2], "epsilon": np.float32(0.1)}),
    Case("l2_norm", {"x": normal(2, 4, 3, 2)}),
    Case(
        "instance_norm",
        {"x": IMAGE},
        {"gamma": normal(4), "beta": normal(4)},
        lambda x, gamma, beta: functional.instance_norm(t(x), weight=t(gamma), bias=t(beta)),
    ),
    Case(
        "batch_norm",
        {"x": IMAGE},
        {"mean": normal(4), "variance": uniform(4), "gamma": normal(4), "beta": normal(4)},
        lambda x, mean, variance, gamma, beta: functional.batch_norm(t(x), t(mean), t(variance), t(gamma), t(beta)),
    ),
    Case("local_response_norm", {"x": IMAGE}, {"size": 3}, lambda x, size: functional.local_response_norm(t(x), size)),
]
