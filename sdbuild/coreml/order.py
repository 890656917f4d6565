"""The order in which a program's operations keep few results alive, and when each result is read last."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Operation = TypeVar("Operation")
Name = TypeVar("Name", bound=Hashable)


def in_order_of_demand(
    operations: Sequence[Operation],
    reads: Callable[[Operation], Iterable[Name]],
    writes: Callable[[Operation], Iterable[Name]],
    wanted: Iterable[Name],
) -> list[Operation]:
    """The operations that the wanted values need, each as late as its first reader allows.

    Converters put like operations of all attention heads next to each other; computing one head to its end before the
    next begins keeps far fewer results alive.

    Args:
        operations: in an order in which they can run.
        reads: the values that an operation reads; those that no operation writes are inputs.
        writes: the values that an operation makes.
        wanted: the values to end with.
    """
    maker: Mapping[Name, Operation] = {value: operation for operation in operations for value in writes(operation)}
    ordered: list[Operation] = []
    entered: set[int] = set()
    for output in wanted:
        stack: list[tuple[Operation, bool]] = [(maker[output], False)] if output in maker else []
        while stack:
            operation, ready = stack.pop()
            if ready:
                ordered.append(operation)
                continue
            if id(operation) in entered:
                continue
            entered.add(id(operation))
            stack.append((operation, True))
            stack.extend((maker[value], False) for value in reversed(list(reads(operation))) if value in maker)
    return ordered
