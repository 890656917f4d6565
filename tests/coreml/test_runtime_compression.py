"""Compressed weights of all deployment targets give what coremltools' own decompression gives, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import types
from coremltools.optimize import _utils as optimize_utils

from sdbuild.coreml.runtime import Model
from sdbuild.coreml.runtime.packing import look_up_packed, unpack

RNG = np.random.default_rng(11)
SHAPE = (8, 12)


def halves(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float16)


def sub_byte(low: int, high: int, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(types.nptype_from_builtin(kind))


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """iOS 16's packing: elements one after the other, least significant bits first."""
    stream = (values.reshape(-1, 1) >> np.arange(bits)) & 1
    return np.packbits(stream.reshape(-1).astype(np.uint8), bitorder="little")


def mask_of(shape: tuple[int, ...]) -> np.ndarray:
    return (RNG.random(shape) > 0.4).astype(types.nptype_from_builtin(types.uint1))


def affine(axis: int, vector: bool, signed: bool) -> Any:
    low, high, dtype = (-128, 128, np.int8) if signed else (0, 256, np.uint8)
    size = (SHAPE[axis],) if vector else ()
    return mb.constexpr_affine_dequantize(
        quantized_data=RNG.integers(low, high, SHAPE).astype(dtype),
        zero_point=RNG.integers(low, high, size).astype(dtype),
        scale=np.abs(RNG.standard_normal(size)).astype(np.float16),
        axis=axis,
    )


def table16(bits: int, shape: tuple[int, ...]) -> Any:
    indices = RNG.integers(0, 2**bits, shape)
    return mb.constexpr_lut_to_dense(
        indices=packed(indices, bits), lut=halves(2**bits), shape=np.array(shape, np.uint32)
    )


def sparse16(shape: tuple[int, ...]) -> Any:
    mask = RNG.random(shape) > 0.5
    return mb.constexpr_sparse_to_dense(
        nonzero_data=halves(int(mask.sum())), mask=packed(mask.astype(np.uint8), 1), shape=np.array(shape, np.uint32)
    )


INDEX_TYPES = {1: types.uint1, 2: types.uint2, 3: types.uint3, 4: types.uint4, 6: types.uint6, 8: types.uint8}


def table18(bits: int, blocks: tuple[int, ...], vector: int = 1, axis: int | None = None, lut: Any = None) -> Any:
    indices = sub_byte(0, 2**bits, INDEX_TYPES[bits], SHAPE)
    table = halves(*blocks, 2**bits, vector) if lut is None else lut
    return mb.constexpr_lut_to_dense(indices=indices, lut=table, vector_axis=None if axis is None else np.int32(axis))


def blockwise(kind: Any, low: int, high: int, blocks: tuple[int, ...], offset: str | None) -> Any:
    offsets = {
        None: None,
        "same": sub_byte(low, high, kind, blocks),
        "half": halves(*blocks),
    }
    return mb.constexpr_blockwise_shift_scale(
        data=sub_byte(low, high, kind, SHAPE), scale=halves(*blocks), offset=offsets[offset]
    )


def sparse18() -> Any:
    mask = mask_of(SHAPE)
    return mb.constexpr_sparse_to_dense(nonzero_data=halves(int(mask.sum())), mask=mask)


def table_of_sparse(bits: int, vector: int, axis: int | None) -> Any:
    mask = mask_of(SHAPE)
    outputs = mb.constexpr_lut_to_sparse(
        indices_mask=mask,
        indices_nonzero_data=sub_byte(0, 2**bits, INDEX_TYPES[bits], (int(mask.sum()),)),
        lut=halves(1, 2, 2**bits, vector),
        vector_axis=None if axis is None else np.int32(axis),
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=outputs[1], mask=outputs[0])


def quantized_sparse() -> Any:
    mask = mask_of(SHAPE)
    outputs = mb.constexpr_sparse_blockwise_shift_scale(
        data_mask=mask,
        nonzero_data=sub_byte(-8, 8, types.int4, (int(mask.sum()),)),
        scale=halves(2, 3),
        offset=sub_byte(-8, 8, types.int4, (2, 3)),
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=outputs[1], mask=outputs[0])


def quantized_table() -> Any:
    """A palette whose entries are quantized themselves."""
    lut = mb.constexpr_blockwise_shift_scale(
        data=RNG.integers(-128, 128, (2, 1, 16, 1)).astype(np.int8), scale=halves(1, 1, 1, 1)
    )
    return table18(4, (2, 1), lut=lut)


FORMS: list[tuple[str, str, Callable[[], Any]]] = [
    *((f"affine-{a}-{v}-{s}", "iOS16", lambda a=a, v=v, s=s: affine(a, v, s))
      for a, v, s in ((0, True, True), (1, True, False), (0, False, True))),
    *((f"packed table {bits} bits", "iOS16", lambda bits=bits: table16(bits, (5, 7))) for bits in (1, 2, 4, 6, 8)),
    ("packed table 6 bits, long", "iOS16", lambda: table16(6, (64, 67))),
    ("packed mask", "iOS16", lambda: sparse16((5, 7))),
    ("cast", "iOS16", lambda: mb.constexpr_cast(source_val=halves(4, 5), output_dtype="fp32")),
    *((f"table {bits} bits", "iOS18", lambda bits=bits: table18(bits, (1, 1))) for bits in (1, 2, 3, 4, 6, 8)),
    *((f"grouped tables {blocks}", "iOS18", lambda blocks=blocks: table18(4, blocks))
      for blocks in ((2, 1), (8, 1), (1, 3), (4, 6))),
    *((f"vectors along {axis}", "iOS18", lambda axis=axis: table18(3, (2, 1), 4, axis)) for axis in (0, 1, -1)),
    *((f"blockwise {name} offset {offset}", "iOS18",
       lambda kind=kind, low=low, high=high, offset=offset: blockwise(kind, low, high, (4, 3), offset))
      for name, kind, low, high in (("int4", types.int4, -8, 8), ("uint4", types.uint4, 0, 16),
                                    ("int8", types.int8, -128, 128), ("uint8", types.uint8, 0, 256))
      for offset in (None, "same", "half")),
    ("mask", "iOS18", sparse18),
    ("table of sparse", "iOS18", lambda: table_of_sparse(4, 1, None)),
    ("vectors of sparse", "iOS18", lambda: table_of_sparse(2, 2, 0)),
    ("quantized sparse", "iOS18", quantized_sparse),
    ("quantized table", "iOS18", quantized_table),
]  # fmt: skip


def by_coremltools(operation: Any) -> np.ndarray:
    if operation.op_type == "constexpr_lut_to_dense" and operation.lut.val is None:
        lut = operation.lut.op.materialized_val_inference()
        return operation.decompress(operation.indices.val, lut, operation.vector_axis)
    return operation.materialized_val_inference()


@pytest.fixture(scope="module")
def decompressed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every form as (runtime's values, coremltools' values)."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for target in ("iOS16", "iOS18"):
        chosen = [(name, build) for name, since, build in FORMS if since == target]
        expected: list[np.ndarray] = []

        @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=ct.target[target])
        def program(x: Any) -> Any:
            outputs = []
            for number, (_, build) in enumerate(chosen):  # noqa: B023 - called at once
                weight = build()
                expected.append(by_coremltools(weight.op))  # noqa: B023
                same = weight if weight.dtype == types.fp32 else mb.cast(x=weight, dtype="fp32")
                outputs.append(mb.add(x=same, y=x, name=f"out_{number}"))
            return tuple(outputs)

        path = tmp_path_factory.mktemp(target) / "weights.mlpackage"
        ct.convert(
            program,
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        ).save(str(path))
        outputs = Model(path).predict({"x": np.zeros(1, np.float32)})
        for number, (name, _) in enumerate(chosen):
            found[name] = (outputs[f"out_{number}"], expected[number].astype(np.float32))
    return found


@pytest.mark.parametrize("name", [name for name, _, _ in FORMS])
def test_weight_decompresses_to_coremltools_values(
    name: str, decompressed: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    got, expected = decompressed[name]
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("elements", [1, 7, 8, 9, 4097])
def test_packed_elements_are_read_back(bits: int, elements: int) -> None:
    values = RNG.integers(0, 2**bits, elements).astype(np.uint8)
    stored = torch.from_numpy(packed(values, bits))
    assert np.array_equal(unpack(stored, bits, elements).numpy(), values)
    signed = optimize_utils.restore_elements_from_packed_bits(stored.numpy(), bits, elements, True)
    assert np.array_equal(unpack(stored, bits, elements, signed=True).numpy(), signed)
    table = torch.from_numpy(halves(2**bits))
    assert torch.equal(look_up_packed(stored, table, elements), table[torch.from_numpy(values).long()])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = [RNG.standard_normal(shape).astype(np.float32) for shape in ((64, 16, 3, 3), (64, 64, 1, 1))]

    @mb.program(input_specs=[mb.TensorSpec((1, 16, 6, 6))], opset_version=ct.target.iOS18)
    def program(x: Any) -> Any:
        hidden = mb.silu(x=mb.conv(x=x, weight=weights[0], pad_type="same"))
        return mb.conv(x=hidden, weight=weights[1], name="y")

    path = tmp_path_factory.mktemp("network") / "network.mlpackage"
    ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True).save(str(path))
    return path


def _palettized(**options: Any) -> Callable[[Any], Any]:
    config = cto.coreml.OpPalettizerConfig(weight_threshold=0, **options)
    return lambda model: cto.coreml.palettize_weights(model, cto.coreml.OptimizationConfig(config))


def _quantized(**options: Any) -> Callable[[Any], Any]:
    config = cto.coreml.OpLinearQuantizerConfig(weight_threshold=0, **options)
    return lambda model: cto.coreml.linear_quantize_weights(model, cto.coreml.OptimizationConfig(config))


def _pruned(model: Any) -> Any:
    config = cto.coreml.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    return cto.coreml.prune_weights(model, cto.coreml.OptimizationConfig(config))


def _then(second: Callable[..., Any], options: dict[str, Any]) -> Callable[[Any], Any]:
    def both(model: Any) -> Any:
        return second(_pruned(model), cto.coreml.OptimizationConfig(options["config"]), joint_compression=True)

    return both


COMPRESSIONS = {
    "palette": _palettized(mode="uniform", nbits=6),
    "grouped palettes": _palettized(
        mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=16, channel_axis=0
    ),
    "int8 channels": _quantized(mode="linear_symmetric"),
    "int4 blocks": _quantized(mode="linear", dtype="int4", granularity="per_block", block_size=8),
    "sparse": _pruned,
    "sparse palette": _then(
        cto.coreml.palettize_weights,
        {"config": cto.coreml.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)},
    ),
    "sparse int8": _then(
        cto.coreml.linear_quantize_weights,
        {"config": cto.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)},
    ),
}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compressed_model_runs_as_its_decompressed_form(name: str, network: Path, tmp_path: Path) -> None:
    compressed = COMPRESSIONS[name](ct.models.MLModel(str(network), skip_model_load=True))
    compressed.save(str(tmp_path / "small.mlpackage"))
    cto.coreml.decompress_weights(ct.models.MLModel(str(tmp_path / "small.mlpackage"), skip_model_load=True)).save(
        str(tmp_path / "large.mlpackage")
    )
    x = {"x": RNG.standard_normal((1, 16, 6, 6)).astype(np.float32)}
    small, large = (Model(tmp_path / f"{size}.mlpackage", "fp16").predict(x)["y"] for size in ("small", "large"))
    assert np.array_equal(small, large)
