"""Bit-packed integers: elements of 1, 2, 3, 4 or 6 bits, least significant bits first, running across byte borders."""

from __future__ import annotations

from math import log2

import torch
from torch import Tensor

_PIECE = 3 << 22  # bytes unpacked at a time; a multiple of three, so that pieces end between elements


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
    pieces = []
    for piece in torch.split(packed.reshape(-1), _PIECE):
        if width == 8:
            positions = piece.int()
        else:
            groups = _byte_groups(piece)
            positions = torch.stack((groups & 0xFFF, groups >> 12), dim=-1).reshape(-1)
        pieces.append(combinations.index_select(0, positions).reshape(-1))
    return (torch.cat(pieces) if len(pieces) > 1 else pieces[0])[:elements]


def _byte_groups(packed: Tensor) -> Tensor:
    """Three bytes at a time as one number, zeros filled up at the end."""
    missing = -packed.numel() % 3
    padded = torch.cat((packed, packed.new_zeros(missing))) if missing else packed
    first, second, third = padded.reshape(-1, 3).int().unbind(-1)
    return first | (second << 8) | (third << 16)
