"""Sub-byte integers in a row of bytes, as Core ML stores them.

Element i occupies bits i·n to i·n + n - 1, counted from the least significant bit of the first byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sdbuild.errors import SdbuildError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = (1, 2, 3, 4, 6, 8)
"""The widths that Core ML's look-up tables have."""

_PIECE = 1 << 17


class PackingError(SdbuildError):
    """Values or widths that cannot be packed."""


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` packed elements take."""
    return -(-count * bits // 8)


def pack(elements: NDArray[np.uint8], bits: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Pack elements below 2**bits.

    Args:
        elements: contiguous; read in row-major order.
        bits: one of `BITS`.
        out: where to write, `packed_size` bytes; allocated when not given.

    Returns:
        The packed bytes; unused high bits of the last byte are zero.

    Raises:
        PackingError: for an unknown width.
    """
    if bits not in BITS:
        raise PackingError(f"{bits} bits cannot be packed; choose one of {', '.join(map(str, BITS))}")
    flat = elements.reshape(-1)
    result = np.empty(packed_size(flat.size, bits), np.uint8) if out is None else out
    whole = flat.size // 8 * 8
    for start in range(0, whole, _PIECE):
        stop = min(start + _PIECE, whole)
        _pack_octets(flat[start:stop].view("<u8"), bits, result[start * bits // 8 : stop * bits // 8])
    if whole < flat.size:
        last = np.zeros(8, np.uint8)
        last[: flat.size - whole] = flat[whole:]
        packed = np.empty(bits, np.uint8)
        _pack_octets(last.view("<u8"), bits, packed)
        result[whole * bits // 8 :] = packed[: result.size - whole * bits // 8]
    return result


def _pack_octets(octets: NDArray[np.uint64], bits: int, out: NDArray[np.uint8]) -> None:
    """Pack eight elements of a byte each into `bits` bytes, for every 64-bit word."""
    if bits == 8:
        out[:] = octets.view(np.uint8)
        return
    words = octets.copy()
    upper = np.empty_like(words)
    for width, lower_fields in ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF)):
        # In every pair of fields, `width` bits wide with `held` bits in use, move the upper one down to the lower one.
        held = bits * width // 8
        np.right_shift(words, np.uint64(width - held), out=upper)
        upper &= np.uint64(_upper_fields(width, held))
        words &= np.uint64(lower_fields)
        words |= upper
    parts = {1: ["<u1"], 2: ["<u2"], 3: ["<u2", "<u1"], 4: ["<u4"], 6: ["<u4", "<u2"]}[bits]
    fields = out.view(np.dtype([(f"f{index}", part) for index, part in enumerate(parts)]))
    for name in fields.dtype.names or ():
        fields[name] = words
        words >>= np.uint64(8 * fields.dtype[name].itemsize)


def _upper_fields(width: int, held: int) -> int:
    """Where the upper fields of all pairs stand after they moved down next to the lower ones."""
    field = ((1 << held) - 1) << held
    return sum(field << position for position in range(0, 64, 2 * width))
