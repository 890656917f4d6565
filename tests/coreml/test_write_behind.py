"""A file written on a thread of its own holds what was written, in order, and keeps no error to itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdbuild.coreml.package import BlobType, WeightFileWriter
from sdbuild.coreml.write_behind import WAITING, WriteBehind


class _Full(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def test_a_weight_file_is_the_same(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((40, 70)).astype(np.float32)
    plain, behind = tmp_path / "plain.bin", tmp_path / "behind.bin"
    for writer in (WeightFileWriter(plain), WeightFileWriter(behind, WriteBehind(behind.open("wb")))):
        with writer:
            for count in range(1, 40):
                writer.add((row[:count] for row in values), BlobType.FLOAT32, 160 * count)
    assert behind.read_bytes() == plain.read_bytes()


def test_what_comes_afterwards_finds_everything_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    raw = path.open("wb", buffering=0)
    file = WriteBehind(raw)
    sizes: list[int] = []
    for _ in range(3):
        file.write(bytes(1000))
        file.afterwards(lambda: sizes.append(path.stat().st_size))
    file.close()
    assert sizes == [1000, 2000, 3000]


def test_an_error_is_raised_while_writing() -> None:
    file = WriteBehind(_Full())
    file.write(bytes(WAITING))
    with pytest.raises(OSError, match="No space left"):
        file.write(b"abc")


def test_an_error_is_raised_at_the_end_and_the_file_is_closed(tmp_path: Path) -> None:
    full = _Full()
    writer = WeightFileWriter(tmp_path / "weight.bin", WriteBehind(full))
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert full.closed
