"""Trace a module in one run: torch runs it twice, and the first run only finds out what we know already.

Before torch traces a module functionally it runs it once without tracing, to learn which inputs are changed in place
and which outputs share memory with an input or with each other. That run takes two fifths of the time. The modules that
we export change none of their inputs and return new tensors, so the first run is left out, and the run that is traced
is checked for exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


class ImpureModuleError(Exception):
    """A module changes an input or a buffer in place, or returns tensors that share memory."""


@contextmanager
def without_a_first_run(results: int) -> Iterator[None]:
    """Let torch take for granted, while it traces one module, that results are new tensors and inputs do not change.

    Args:
        results: how many tensors the module returns.

    Raises:
        ImpureModuleError: at the end, it was not so; the graph must not be used.
    """
    from torch._functorch import aot_autograd
    from torch._functorch._aot_autograd import graph_capture
    from torch._functorch._aot_autograd.collect_metadata_analysis import run_functionalized_fw_and_collect_metadata
    from torch._functorch._aot_autograd.graph_capture_wrappers import create_functionalized_fn

    def collect(function: Any, **options: Any) -> Any:
        return run_functionalized_fw_and_collect_metadata(
            lambda *arguments: tuple(torch.empty(()) for _ in range(results)), **options
        )

    def functionalised(function: Any, arguments: Any, *others: Any, **options: Any) -> Any:
        return create_functionalized_fn(checked(function, arguments), arguments, *others, **options)

    def checked(function: Callable[..., Any], given: Sequence[Any]) -> Callable[..., Any]:
        """The function that is traced, followed by a look at what it did."""

        @wraps(function)  # the root module, from which torch tells where nodes belong, is an attribute
        def run(*arguments: Any) -> Any:
            outputs, descriptions = function(*arguments)
            impure.append(len(outputs) != results or _changed(arguments, given) or share_memory(arguments, outputs))
            return outputs, descriptions

        return run

    impure: list[bool] = []

    with ExitStack() as stack:
        stack.enter_context(replaced(aot_autograd, "run_functionalized_fw_and_collect_metadata", collect))
        stack.enter_context(replaced(graph_capture, "create_functionalized_fn", functionalised))
        yield
    if any(impure):
        raise ImpureModuleError


def _changed(arguments: Sequence[Any], inputs: Sequence[Any]) -> bool:
    from torch._functorch._aot_autograd.functional_utils import has_data_mutation, has_metadata_mutation

    return any(
        has_data_mutation(argument) or has_metadata_mutation(argument, given, check_only_storage_mutation=False)
        for argument, given in zip(arguments, inputs, strict=True)
    )


def share_memory(arguments: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Whether an output lies in an argument's memory, as a view does, or in that of another output."""
    from torch.multiprocessing.reductions import StorageWeakRef

    reference: Any = StorageWeakRef

    def storages(values: Sequence[Any]) -> list[Any]:
        return [reference(value.untyped_storage()) for value in values if isinstance(value, torch.Tensor)]

    returned = storages(outputs)
    return len(set(returned)) < len(outputs) or not set(returned).isdisjoint(storages(arguments))


PATCH = Patch(
    name="no first run",
    why="torch runs a module before it traces it, to find out what we know",
    without="tracing takes two thirds longer, and what is repeated is traced each time",
    equality_test="tests/coreml/test_single_run.py::test_the_graph_is_that_of_two_runs",
    sources=(
        *known(
            "torch._functorch.aot_autograd",
            {
                "create_aot_state": (
                    "536f277f70602ec0",
                    "cc9a20a1db917c33",
                ),
                "aot_export_joint_with_descriptors": (
                    "fb2df275c9944e6b",
                    "fcc6bcdb74d26aa4",
                ),
                "_aot_export_function": (
                    "0e6d7f8298b910e2",
                    "52d581d6681204ff",
                ),
            },
        ),
        *known(
            "torch._functorch._aot_autograd.graph_capture",
            {
                "aot_dispatch_base_graph": ("ca52790467c1b5e7",),
            },
        ),
        *known(
            "torch._functorch._aot_autograd.collect_metadata_analysis",
            {
                "run_functionalized_fw_and_collect_metadata": (
                    "5d965b615e2de894",
                    "f9f49b5f46766a0f",
                ),
            },
        ),
        *known(
            "torch._functorch._aot_autograd.graph_capture_wrappers",
            {
                "create_functionalized_fn": ("a26a4f6e3cb2ea60",),
            },
        ),
        *known(
            "torch._functorch._aot_autograd.functional_utils",
            {
                "has_data_mutation": (
                    "29a7b2f47890014b",
                    "4251fadec6b84115",
                ),
                "has_metadata_mutation": (
                    "99f5ac871477a4d4",
                    "51a5a6c49595eb9d",
                ),
            },
        ),
    ),
    made=without_a_first_run,
)
