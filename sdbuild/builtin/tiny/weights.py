"""Deterministic weights: every tensor comes from a counter-based generator keyed by its name.

The same bytes come out on every machine and with every NumPy release: only Philox's raw 64-bit stream is used (which
NumPy promises never to change), and it becomes a nearly normal variable by adding integers (Irwin and Hall's
distribution), without any function of the C library.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]

# The sum of four independent uniform 16-bit integers: mean and standard deviation.
_MEAN = 4 * 65535 / 2
_DEVIATION = math.sqrt(4 * (65536**2 - 1) / 12)

# Thresholds of a safety checker on the cosine similarity: high enough that pictures of random models pass.
_CONCEPT_THRESHOLD = 0.75


def normal(key: str, shape: Shape, *, mean: float = 0.0, deviation: float = 1.0) -> NDArray[np.float32]:
    """Draw float32 values that are nearly normal (bounded at 3.46 deviations) and depend on `key` alone."""
    generator = np.random.Philox(key=int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))
    bits = np.atleast_1d(np.asarray(generator.random_raw(math.prod(shape)), dtype=np.uint64))
    total = np.zeros(bits.shape, dtype=np.uint64)
    for shift in (0, 16, 32, 48):
        total += (bits >> np.uint64(shift)) & np.uint64(0xFFFF)
    values = (total.astype(np.float64) - _MEAN) * (deviation / _DEVIATION) + mean
    return values.astype(np.float32).reshape(shape)


def tensor(key: str, name: str, shape: Shape) -> NDArray[np.generic]:
    """Draw one tensor of a checkpoint at a scale that keeps a network's activations near one.

    Matrices and kernels have variance 1/fan-in, norm weights are near one yet distinct, and biases are small but not
    zero, so that a dropped bias or two swapped norms change the output.
    """
    key = f"{key}/{name}"
    leaf = name.rpartition(".")[2]
    if leaf == "position_ids":
        return np.arange(shape[-1], dtype=np.int64).reshape(shape)
    if leaf in ("concept_embeds_weights", "special_care_embeds_weights"):
        return normal(key, shape, mean=_CONCEPT_THRESHOLD, deviation=0.02)
    if leaf == "bias":
        return normal(key, shape, deviation=0.05)
    if leaf in ("concept_embeds", "special_care_embeds") or name == "shared.weight":
        return normal(key, shape)
    if leaf == "pos_embed":
        # Sines and cosines have this deviation.
        return normal(key, shape, deviation=math.sqrt(0.5))
    if ("embedding.weight" in name and len(shape) == 2) or leaf == "class_embedding":
        return normal(key, shape, deviation=0.5)
    if len(shape) == 1:
        return normal(key, shape, mean=1.0, deviation=0.1)
    return normal(key, shape, deviation=1 / math.sqrt(math.prod(shape[1:])))


def write(path: Path, key: str, shapes: Mapping[str, Shape]) -> None:
    """Draw every tensor of `shapes` and write them to `path` in the safetensors format, in the order of their names."""
    kinds = {"float32": "F32", "int64": "I64"}
    tensors = {name: tensor(key, name, shapes[name]) for name in sorted(shapes)}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in tensors.items():
        end = offset + values.nbytes
        header[name] = {"dtype": kinds[values.dtype.name], "shape": list(values.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for values in tensors.values():
            file.write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
