"""Attention without its matrix of scores.

Programs spell attention out: a product of queries and keys, a softmax, a product with the values. Run like that, SD
1.5's UNet at 512 × 512 needs two matrices of a gigabyte for each attention over its largest feature map. Here the three
steps become one that works head by head, or piece by piece in torch's own fused kernel. Where results are observed or
audited the program runs as it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdbuild.coreml.runtime.constants import Constant
from sdbuild.coreml.runtime.kernels import Kernel
from sdbuild.coreml.runtime.steps import Argument, Source, Step

View = Callable[[Tensor], Tensor]


def _same(x: Tensor) -> Tensor:
    return x


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def _heads(x: Tensor) -> Tensor:
    """Einsum's layout [b, rows, h, columns] as a matrix for each b and h, and back."""
    return x.transpose(-2, -3)


def _heads_transposed(x: Tensor) -> Tensor:
    return x.transpose(-2, -3).transpose(-1, -2)


def _heads_restored(x: Tensor) -> Tensor:
    return x.transpose(-1, -2).transpose(-2, -3)


def fused(steps: Sequence[Step], kept: Sequence[int], *, round_to_half: bool) -> list[Step]:
    """The steps with every attention that can be recognised made one step; the others are copies of the given ones.

    Args:
        steps: the program.
        kept: slots that must stay (the program's outputs).
        round_to_half: whether scores and probabilities are rounded where the program declares them half.
    """
    maker = {slot: step for step in steps for slot in step.outputs}
    readers = Counter([*(slot for step in steps for slot in step.slots), *kept])
    reader = {slot: step for step in steps for slot in step.slots}
    replaced: dict[int, Step | None] = {}
    for softmax in steps:
        if softmax.operation != "softmax":
            continue
        scores, probabilities = softmax.source("x"), softmax.outputs[0]
        if not isinstance(scores, int) or readers[scores] != 1 or readers[probabilities] != 1:
            continue
        first, last = maker.get(scores), reader.get(probabilities)
        if first is None or last is None or first.operation != last.operation:
            continue
        rounds = (
            round_to_half and first.types[0].element == "fp16",
            round_to_half and softmax.types[0].element == "fp16",
        )
        attention = _attention(first, softmax, last, rounds)
        if attention is not None:
            replaced |= {id(first): None, id(softmax): None, id(last): attention}
    result = []
    for step in steps:
        replacement = replaced.get(id(step), step)
        if replacement is not None:
            result.append(
                Step(
                    replacement.operation,
                    replacement.kernel,
                    replacement.arguments,
                    replacement.outputs,
                    replacement.names,
                    replacement.types,
                )
            )
    return result


def _attention(first: Step, softmax: Step, last: Step, rounds: tuple[bool, bool]) -> Step | None:
    """One step for the three, or None where they are no attention over the last two dimensions."""
    axis = _constant(softmax, "axis", -1)
    rank = len(softmax.types[0].shape)
    probabilities = softmax.outputs[0]
    if rank < 3:
        return None
    if first.operation == "matmul" and axis in (-1, rank - 1):
        query, key = first.source("x"), first.source("y")
        query_view = _transposed if _constant(first, "transpose_x", False) else _same
        key_view = _same if _constant(first, "transpose_y", False) else _transposed
        flips = (_constant(last, "transpose_x", False), _constant(last, "transpose_y", False))
        if last.source("x") == probabilities and not flips[0]:
            value, value_view, result_view = last.source("y"), _transposed if flips[1] else _same, _same
        elif last.source("y") == probabilities and flips[1]:
            value, value_view, result_view = last.source("x"), _same if flips[0] else _transposed, _transposed
        else:
            return None
    elif first.operation == "einsum" and axis in (-3, rank - 3):
        # Keys times queries, so that the softmax runs over the rows; then values times the probabilities.
        key, query = first.arguments[0].sources
        value, second = last.arguments[0].sources
        if second != probabilities:
            return None
        query_view, key_view, value_view, result_view = _heads_transposed, _heads, _heads_transposed, _heads_restored
    else:
        return None
    if query is None or key is None or value is None:
        return None
    kernel = _kernel((query_view, key_view, value_view, result_view), rounds)
    operands: list[tuple[str, Source]] = [("query", query), ("key", key), ("value", value)]
    arguments = [Argument(name, "tensor", (source,)) for name, source in operands]
    return Step("attention", kernel, arguments, last.outputs, last.names, last.types)


def _constant(step: Step, name: str, default: int | bool) -> int | bool | None:
    """A constant input's value; None where it is computed."""
    source = step.source(name)
    if source is None:
        return default
    value: int | bool | None = source.value() if isinstance(source, Constant) else None
    return value


def _kernel(views: tuple[View, View, View, View], rounds: tuple[bool, bool]) -> Kernel:
    query_view, key_view, value_view, result_view = views

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        queries, keys, values = query_view(query), key_view(key), value_view(value)
        batch = np.broadcast_shapes(queries.shape[:-2], keys.shape[:-2], values.shape[:-2])
        queries, keys, values = (x.expand(*batch, *x.shape[-2:]) for x in (queries, keys, values))
        if any(rounds):
            return result_view(_by_head(queries, keys, values, rounds))
        # The fused kernel needs elements of a vector next to each other, else torch computes all scores after all.
        queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
        return result_view(functional.scaled_dot_product_attention(queries, keys, values, scale=1.0))

    return Kernel(attention, dict.fromkeys(("query", "key", "value"), "tensor"), frozenset(), False, False)


def _by_head(queries: Tensor, keys: Tensor, values: Tensor, rounds: tuple[bool, bool]) -> Tensor:
    """softmax(query · keyᵀ) · value for one head at a time, with scores and probabilities rounded to half."""
    batch = queries.shape[:-2]
    result = queries.new_empty(*batch, queries.shape[-2], values.shape[-1])
    scores = queries.new_empty(queries.shape[-2], keys.shape[-2])
    probabilities = torch.empty_like(scores)
    half = torch.empty_like(scores, dtype=torch.float16)
    for index in np.ndindex(*batch):
        torch.mm(queries[index], keys[index].transpose(-1, -2), out=scores)
        if rounds[0]:
            scores.copy_(half.copy_(scores))
        torch.softmax(scores, dim=-1, out=probabilities)
        if rounds[1]:
            probabilities.copy_(half.copy_(probabilities))
        torch.mm(probabilities, values[index], out=result[index])
    return result
