"""Run coremltools' graph passes at the cost of their work alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any


def run(program: Any, pipeline: Any, started: Callable[[str], None] = lambda name: None) -> None:
    """Apply the passes of a pipeline in order.

    coremltools' own runner does the same, but prints the whole program into a log message that nobody sees, and after
    each of some hundred passes checks every operation of the program. Here the program is checked once, after the last
    pass, when it is serialised.
    """
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    pipeline.validate()
    for name in pipeline.passes:
        started(name)
        graph_pass = PASS_REGISTRY[name]
        graph_pass.set_options(pipeline.get_options(name))
        graph_pass(program)


@contextmanager
def replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Give an attribute of a class or module another value for a while."""
    original = vars(owner)[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def without_needless_work() -> Iterator[None]:
    """Leave out, for the time of one conversion, what takes seconds and changes nothing.

    - Compressed constants must not be folded, and whenever a pass leaves a block coremltools searches all operations
      for them. There are none before palettization.
    - Some passes print the whole program into log messages of a level that nobody sees.
    - A progress bar is drawn into what mostly is a log file.
    - The names of an operation's scopes, which are short lists of texts and numbers, are copied as if they could hold
      anything.
    - The description of a type is built anew, from the element type up, each time that a type is asked what it is.
    """
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.block import Block, Function
    from coremltools.converters.mil.mil.var import Var

    described = cache(types.get_type_info)
    with ExitStack() as stack:
        stack.enter_context(replaced(Block, "_propagate_nonreplaceable_vars", lambda block: None))
        stack.enter_context(replaced(Var, "_set_nonreplaceable_vars_upstream", lambda var: None))
        stack.enter_context(replaced(Var, "scopes", Var.scopes.setter(_set_scopes)))
        stack.enter_context(replaced(ops, "_tqdm", lambda nodes, **options: nodes))
        for kind in (Block, Function):
            stack.enter_context(replaced(kind, "__str__", lambda block: block.name))
        for module in (types.type_mapping, types.type_list, types.type_state, types.type_tensor):
            stack.enter_context(replaced(module, "get_type_info", described))
        yield


def _set_scopes(var: Any, scopes: Any) -> None:
    if var.op is None:
        raise ValueError(f"cannot set the scopes of the function input {var.name}")
    var.op.scopes = defaultdict(list, {source: list(names) for source, names in scopes.items()})
