"""Attention over (B, C, 1, S), in the ways that a recipe's `attention_implementation` names.

Each function takes queries (B, C, 1, Q), already scaled, and keys and values (B, C, 1, K), and returns (B, C, 1, Q).
Heads are runs of C / heads channels. See docs/explanation/neural-engine.md for what each is good for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sdbuild.models.errors import ModelError

# The length of a piece of the query sequence in SPLIT_EINSUM_V2: at 64×64 latents a head's weights are then
# 4096×512 instead of 4096×4096, which the Neural Engine's local memory holds.
QUERY_CHUNK = 512

AttentionFunction = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def attention_function(implementation: str, query_chunk: int = QUERY_CHUNK) -> AttentionFunction:
    """The function of that name; `query_chunk` matters to SPLIT_EINSUM_V2 alone.

    Raises:
        ModelError: there is no such implementation.
    """
    functions: dict[str, AttentionFunction] = {
        "ORIGINAL": batched,
        "SPLIT_EINSUM": split_heads,
        "SPLIT_EINSUM_V2": partial(split_heads_and_queries, query_chunk=query_chunk),
        "SDPA": fused,
    }
    if implementation not in functions:
        raise ModelError(f"Unknown attention implementation {implementation!r}; known are {', '.join(functions)}.")
    return functions[implementation]


def batched(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """All heads in one matrix product: few, large operations for CPU and GPU."""
    batch, channels, _, length = query.shape
    query, key, value = (tensor.reshape(batch, heads, channels // heads, -1) for tensor in (query, key, value))
    weights = torch.einsum("bhcq,bhck->bhqk", query, key).softmax(-1)
    return torch.einsum("bhck,bhqk->bhcq", value, weights).reshape(batch, channels, 1, length)


def fused(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention as one operation, which Core ML has from iOS 18 and macOS 15 on."""
    batch, channels, _, length = query.shape
    query, key, value = (
        tensor.reshape(batch, heads, channels // heads, -1).transpose(2, 3) for tensor in (query, key, value)
    )
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    return attended.transpose(2, 3).reshape(batch, channels, 1, length)


def split_heads(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """One head at a time, weights as (B, K, 1, Q), so that nothing is ever transposed but the keys."""
    keys, values = _key_and_value_heads(key, value, heads)
    return _attend(query, keys, values)


def split_heads_and_queries(query: Tensor, key: Tensor, value: Tensor, heads: int, *, query_chunk: int) -> Tensor:
    """The same for one piece of the query sequence after the other.

    Only where both sequences are longer than a piece: otherwise (cross-attention to 77 tokens, low resolutions) a
    head's weights are small already, and pieces would only add operations. The last piece is shorter where
    `query_chunk` does not divide the sequence.
    """
    length = query.shape[3]
    if min(length, key.shape[3]) <= query_chunk:
        return split_heads(query, key, value, heads)
    keys, values = _key_and_value_heads(key, value, heads)
    sizes = [min(query_chunk, length - start) for start in range(0, length, query_chunk)]
    return torch.cat([_attend(piece, keys, values) for piece in torch.split(query, sizes, dim=3)], dim=3)


def _key_and_value_heads(key: Tensor, value: Tensor, heads: int) -> tuple[list[Tensor], list[Tensor]]:
    """Keys as (B, K, 1, c) and values as (B, c, 1, K) for each head."""
    if heads == 1:
        return [key.transpose(1, 3)], [value]
    # A list of sizes exports as one operation with many results; an integer would be computed from the shape.
    sizes = [key.shape[1] // heads] * heads
    return list(torch.split(key.transpose(1, 3), sizes, dim=3)), list(torch.split(value, sizes, dim=1))


def _attend(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    # In this order of operands each einsum is the `nchw,nwhu->nchu` that Core ML has an operation for.
    queries = [query] if len(keys) == 1 else torch.split(query, [query.shape[1] // len(keys)] * len(keys), dim=1)
    attended = [
        torch.einsum("bchk,bkhq->bchq", value, torch.einsum("bkhc,bchq->bkhq", key, query).softmax(1))
        for query, key, value in zip(queries, keys, values, strict=True)
    ]
    return attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)
