"""GGUF files, written by the package that reads them: quantised and plain tensors, and shapes that were flattened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from sdbuild.checkpoints.gguf_file import read_gguf
from sdbuild.checkpoints.single_file_tensors import open_single_file
from sdbuild.models.errors import ModelError

QUANTISED = ("Q8_0", "Q4_0", "Q5_1", "BF16")


def write(path: Path, kind: str) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    writer = GGUFWriter(path, "sdxl")
    writer.add_tensor("input_blocks.0.0.bias", values[0].astype(np.float16))
    stored = quantize(values, GGMLQuantizationType[kind])
    writer.add_tensor("output_blocks.0.0.weight", stored, raw_dtype=GGMLQuantizationType[kind])
    writer.add_array("comfy.gguf.orig_shape.flat", [4, 8, 4, 4])
    writer.add_tensor("flat", quantize(values, GGMLQuantizationType[kind]), raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return np.asarray(dequantize(stored, GGMLQuantizationType[kind]), np.float32)


@pytest.mark.parametrize("kind", QUANTISED)
def test_tensors_are_widened(kind: str, tmp_path: Path) -> None:
    expected = write(tmp_path / "x.gguf", kind)
    tensors = open_single_file(tmp_path / "x.gguf", ("",))
    weight = tensors["output_blocks.0.0.weight"]
    assert (weight.shape, weight.dtype) == ((8, 64), "float32")
    assert np.array_equal(weight.read(), expected)
    assert np.array_equal(weight.piece(2, 4).read(), expected[2:4])
    assert np.array_equal(tensors["flat"].read(), expected.reshape(4, 8, 4, 4))
    assert (tensors["input_blocks.0.0.bias"].dtype, tensors["input_blocks.0.0.bias"].shape) == ("float16", (64,))
    assert set(read_gguf(tmp_path / "x.gguf", ("input_blocks.",))) == {"input_blocks.0.0.bias"}


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        read_gguf(tmp_path / "x.gguf")
