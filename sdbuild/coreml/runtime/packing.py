"""Bit-packed integers: elements of 1, 2, 3, 4 or 6 bits, least significant bits first, running across byte borders."""

from __future__ import annotations

from math import log2

import numpy as np
import torch
from torch import Tensor

_PIECE = 3 << 22  # bytes unpacked at a time; a multiple of three, so that pieces end between elements
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def unpack(packed: Tensor, bits: int, elements: int, *, signed: bool = False) -> Tensor:
    """The first `elements` values of a flat uint8 tensor, one a byte (int8 where `signed`)."""
    if bits == 8:
        values = packed[:elements].clone()
    elif bits in (1, 2, 4):
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
        values = ((packed.unsqueeze(-1) >> shifts) & (2**bits - 1)).reshape(-1)[:elements]
    else:
        groups = _byte_groups(packed)
        shifts = torch.arange(0, 24, bits, dtype=torch.int32)
        values = ((groups.unsqueeze(-1) >> shifts) & (2**bits - 1)).to(torch.uint8).reshape(-1)[:elements]
    if not signed:
        return values
    half = 2 ** (bits - 1)
    return ((values.to(torch.int8) ^ half) - half) if bits < 8 else values.view(torch.int8)


def look_up_packed(packed: Tensor, lut: Tensor, elements: int) -> Tensor:
    """Table entries for packed indices, several at a time.

    All combinations of the indices that fit one look-up word (a byte, or twelve bits where indices have six or three)
    are tabulated first, so that one memory access gives up to eight weights.
    """
    table = lut.reshape(-1)
    bits = int(log2(table.numel()))
    width = 12 if bits in (3, 6) else 8
    words = torch.arange(2**width, dtype=torch.int32)
    shifts = torch.arange(0, width, bits, dtype=torch.int32)
    combinations = table[((words.unsqueeze(-1) >> shifts) & (2**bits - 1)).long()]
    # Entries that fill a machine word together are moved as that word.
    word = _WORDS.get(combinations.shape[1] * combinations.element_size())
    entries = combinations.view(word).reshape(-1) if word is not None else combinations
    pieces = []
    for piece in torch.split(packed.reshape(-1), _PIECE):
        positions = piece.int() if width == 8 else _twelve_bits(piece)
        pieces.append(entries.index_select(0, positions).view(table.dtype).reshape(-1))
    return (torch.cat(pieces) if len(pieces) > 1 else pieces[0])[:elements]


def _twelve_bits(packed: Tensor) -> Tensor:
    """Two numbers of twelve bits out of each three bytes; NumPy's 16-bit arithmetic beats torch's."""
    missing = -packed.numel() % 3
    source = (np.pad(packed.numpy(), (0, missing)) if missing else packed.numpy()).reshape(-1, 3)
    result = np.empty((len(source), 2), np.uint16)
    result[:, 0] = source[:, 1] & 15
    result[:, 0] <<= 8
    result[:, 0] |= source[:, 0]
    result[:, 1] = source[:, 2]
    result[:, 1] <<= 4
    result[:, 1] |= source[:, 1] >> 4
    return torch.from_numpy(result.reshape(-1).astype(np.int32))


def _byte_groups(packed: Tensor) -> Tensor:
    """Three bytes at a time as one number, zeros filled up at the end."""
    missing = -packed.numel() % 3
    padded = torch.cat((packed, packed.new_zeros(missing))) if missing else packed
    first, second, third = padded.reshape(-1, 3).int().unbind(-1)
    return first | (second << 8) | (third << 16)
