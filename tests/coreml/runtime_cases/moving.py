"""Operations that move values: shapes, slices, indices, images."""

from __future__ import annotations

import numpy as np
from torch.nn import functional

from tests.coreml.runtime_cases import RNG, Case, integers, normal, t

IMAGE = normal(2, 4, 6, 5)
MATRIX = normal(3, 4)
CASES: list[Case] = [
    Case("reshape", {"x": MATRIX}, {"shape": [2, -1]}),
    Case("reshape", {"x": normal(2, 3, 4)}, {"shape": [0, 2, -1]}),
    Case("transpose", {"x": normal(2, 3, 4)}, {"perm": [2, 0, -2]}),
    Case("expand_dims", {"x": MATRIX}, {"axes": [0, -1]}),
    Case("squeeze", {"x": normal(1, 3, 1, 2)}, {"axes": [0, 2]}),
    Case("squeeze", {"x": normal(1, 3, 1, 2)}),
    Case("flatten2d", {"x": normal(2, 3, 4)}, {"axis": -1}),
    Case("concat", {"values": (MATRIX, normal(3, 2))}, {"axis": 1}),
    Case(
        "concat",
        {"values": (MATRIX, normal(3, 4))},
        {"axis": 0, "interleave": True},
        lambda values, **_: np.stack(values, 1).reshape(6, 4),
    ),
    Case("stack", {"values": (MATRIX, normal(3, 4))}, {"axis": 1}),
    Case("split", {"x": normal(2, 6)}, {"num_splits": 3, "axis": 1}),
    Case("split", {"x": normal(2, 6)}, {"split_sizes": [1, 5], "axis": -1}),
    Case(
        "slice_by_index",
        {"x": normal(5, 6, 4)},
        {"begin": [1, 0, -3], "end": [5, 0, -1], "stride": [2, 1, 1], "end_mask": [False, True, False]},
    ),
    Case(
        "slice_by_index",
        {"x": normal(5, 6)},
        {"begin": [4, 5], "end": [1, 0], "stride": [-2, -1], "end_mask": [False, True]},
    ),
    Case(
        "slice_by_index",
        {"x": normal(5, 6)},
        {"begin": [2, 1], "end": [0, 4], "squeeze_mask": [True, False]},
        lambda x, **_: x[2, 1:4],
    ),
    Case("slice_by_size", {"x": normal(5, 6)}, {"begin": [1, 2], "size": [2, -1]}),
    Case("tile", {"x": MATRIX}, {"reps": [2, 3]}),
    Case("reverse", {"x": normal(2, 3, 4)}, {"axes": [0, -1]}),
    Case(
        "reverse_sequence",
        {"x": normal(3, 4)},
        {"lengths": [1, 3, 4], "seq_axis": 1, "batch_axis": 0},
        lambda x, **_: np.stack(
            [np.concatenate((row[:n][::-1], row[n:])) for row, n in zip(x, (1, 3, 4), strict=True)]
        ),
    ),
    *(
        Case("pad", {"x": normal(2, 4, 5)}, {"pad": [1, 2, 3, 0], "mode": mode, "constant_val": np.float32(0.5)})
        for mode in ("constant", "reflect", "replicate")
    ),
    *(
        Case("band_part", {"x": normal(2, 4, 5)}, {"lower": lower, "upper": upper})
        for lower, upper in ((0, -1), (-1, 0), (1, 2))
    ),
    Case(
        "pixel_shuffle",
        {"x": normal(1, 8, 2, 3)},
        {"upscale_factor": 2},
        lambda x, **_: functional.pixel_shuffle(t(x), 2),
    ),
    Case(
        "pixel_unshuffle",
        {"x": normal(1, 2, 4, 6)},
        {"downscale_factor": np.uint32(2)},
        lambda x, **_: functional.pixel_unshuffle(t(x), 2),
    ),
    Case(
        "depth_to_space",
        {"x": np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)},
        {"block_size": 2},
        lambda x, **_: np.array([[[[0, 2], [4, 6]], [[1, 3], [5, 7]]]]),
    ),
    Case(
        "space_to_depth",
        {"x": np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)},
        {"block_size": 2},
        lambda x, **_: np.array([0, 4, 1, 5, 2, 6, 3, 7]).reshape(1, 8, 1, 1),
    ),
    Case(
        "space_to_batch",
        {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)},
        {"block_shape": [2, 2], "paddings": [[0, 0], [2, 0]]},
        lambda x, **_: np.array([[0, 0], [0, 1], [0, 2], [0, 3]]).reshape(4, 1, 1, 2),
    ),
    Case(
        "batch_to_space",
        {"x": np.arange(8, dtype=np.float32).reshape(4, 1, 1, 2)},
        {"block_shape": [2, 2], "crops": [[0, 0], [1, 0]]},
        lambda x, **_: np.array([[2, 1, 3], [6, 5, 7]]).reshape(1, 1, 2, 3),
    ),
    Case(
        "sliding_windows",
        {"x": normal(2, 7)},
        {"axis": 1, "size": 3, "stride": 2},
        lambda x, **_: np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)[:, ::2],
    ),
    Case("shape", {"x": MATRIX}),
    Case("identity", {"x": MATRIX}),
    Case("logical_not", {}, {"x": RNG.random(6) > 0.5}),
    Case("fill", {}, {"shape": [2, 3], "value": np.float32(0.25)}),
    Case("range_1d", {}, {"end": np.int32(9), "start": np.int32(2), "step": np.int32(3)}),
    Case(
        "dequantize",
        {},
        {"input": np.array([[-3, 7], [1, 0]], np.int8), "scale": np.array([0.5, 2.0], np.float32), "axis": np.int32(1)},
        lambda **given: given["input"] * given["scale"],
        since="iOS17",
    ),
    Case("fill_like", {"ref_tensor": MATRIX}, {"value": np.float32(0.25)}, lambda **_: np.full((3, 4), 0.25)),
    Case("reshape_like", {"x": normal(2, 3, 4)}, {}, lambda x: x.reshape(6, 4)),
    Case(
        "one_hot",
        {"indices": integers(0, 4, 3)},
        {"one_hot_vector_size": 4, "axis": 0, "on_value": np.float32(2.0), "off_value": np.float32(-1.0)},
        lambda indices, **_: np.where(np.arange(4)[:, None] == indices, 2.0, -1.0),
    ),
    *(
        Case("gather", {"x": normal(3, 4, 5), "indices": integers(low, 3, 2, 2)}, {"axis": axis}, since=since)
        for axis, low, since in ((0, -3, "iOS16"), (1, 0, "iOS17"), (-1, 0, "iOS17"))
    ),
    Case("gather", {"x": normal(2, 3, 4), "indices": integers(0, 3, 2, 2)}, {"axis": 1, "batch_dims": 1}),
    Case("gather_along_axis", {"x": normal(3, 4), "indices": integers(0, 3, 2, 4)}, {"axis": 0}),
    Case(
        "gather_nd",
        {"x": normal(3, 4, 5), "indices": integers(0, 3, 2, 2)},
        {},
        lambda x, indices: x[indices[:, 0], indices[:, 1]],
    ),
    Case(
        "gather_nd",
        {"x": normal(2, 4, 5), "indices": integers(0, 3, 2, 3, 1)},
        {"batch_dims": 1},
        lambda x, indices, batch_dims: np.stack([x[b, indices[b, :, 0]] for b in range(2)]),
    ),
    Case(
        "scatter_along_axis",
        {"data": normal(3, 4), "indices": np.array([[1, 0, 2, 1]], np.int32), "updates": normal(1, 4)},
        {"axis": 0, "mode": "update"},
    ),
    Case(
        "gather",
        {"x": normal(3, 4), "indices": integers(0, 3, 2)},
        {"axis": 0, "validate_indices": True},
        since="iOS17",
    ),
    Case(
        "resize_bilinear",
        {"x": IMAGE},
        {"target_size_height": 9, "target_size_width": 4, "sampling_mode": "UNALIGN_CORNERS"},
        lambda x, **_: functional.interpolate(t(x), (9, 4), mode="bilinear", align_corners=False),
    ),
    Case(
        "resize_bilinear",
        {"x": IMAGE},
        {"target_size_height": 9, "target_size_width": 11, "sampling_mode": "STRICT_ALIGN_CORNERS"},
        lambda x, **_: functional.interpolate(t(x), (9, 11), mode="bilinear", align_corners=True),
    ),
    *(
        Case(
            "resize_bilinear",
            {"x": np.array([[[0.0, 1.0]]], np.float32)},
            {"target_size_height": 1, "target_size_width": 5, "sampling_mode": mode},
            lambda x, e=expected, **_: [[e]],
        )
        for mode, expected in (
            ("DEFAULT", [0.0, 0.4, 0.8, 1.0, 1.0]),
            ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
            ("ALIGN_CORNERS", [0.0, 0.25, 0.5, 0.75, 1.0]),
            ("UNALIGN_CORNERS", [0.0, 0.1, 0.5, 0.9, 1.0]),
        )
    ),
    *(
        Case(
            "upsample_bilinear",
            {"x": IMAGE},
            {"scale_factor_height": 2.0, "scale_factor_width": 3.0, "align_corners": corners},
            lambda x, c=corners, **_: functional.interpolate(t(x), (12, 15), mode="bilinear", align_corners=c),
        )
        for corners in (True, False)
    ),
    Case(
        "upsample_nearest_neighbor",
        {"x": IMAGE},
        {"scale_factor_height": 2.0, "scale_factor_width": 3.0},
        lambda x, **_: functional.interpolate(t(x), (12, 15), mode="nearest"),
    ),
    Case(
        "resize_nearest_neighbor",
        {"x": IMAGE},
        {"target_size_height": 3, "target_size_width": 10},
        lambda x, **_: functional.interpolate(t(x), (3, 10), mode="nearest"),
    ),
    Case(
        "resize",
        {"x": IMAGE},
        {"shape": [0, 10], "resized_dims": np.uint32(2), "sampling_mode": "UNALIGN_CORNERS"},
        lambda x, **_: functional.interpolate(t(x), (6, 10), mode="bilinear"),
        since="iOS17",
    ),
    Case(
        "resize",
        {"x": IMAGE},
        {"shape": [3, 10], "resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR"},
        lambda x, **_: functional.interpolate(t(x), (3, 10), mode="nearest"),
        since="iOS17",
    ),
    Case("crop", {"x": IMAGE}, {"crop_height": [1, 2], "crop_width": [0, 3]}, lambda x, **_: x[..., 1:4, :2]),
    Case(
        "quantize",
        {"input": normal(2, 3)},
        {"scale": np.float32(0.1), "zero_point": np.int8(3), "output_dtype": "int8"},
        lambda **given: np.clip(np.round(given["input"] / np.float32(0.1)) + 3, -128, 127),
        since="iOS17",
    ),
    Case(
        "slice_update",
        {"x": normal(4, 5), "update": normal(2, 2)},
        {"begin": [3, 1], "end": [0, 5], "stride": [-2, 2]},
        since="iOS18",
    ),
    *(
        Case(
            "scaled_dot_product_attention",
            {"query": normal(2, 3, 4), "key": normal(2, 5, 4), "value": normal(2, 5, 6)},
            mask,
            lambda query, key, value, attn_mask=None: functional.scaled_dot_product_attention(
                t(query), t(key), t(value), None if attn_mask is None else t(attn_mask)
            ),
            since="iOS18",
        )
        for mask in ({}, {"attn_mask": normal(2, 3, 5)}, {"attn_mask": RNG.random((1, 3, 5)) > 0.3})
    ),
]
