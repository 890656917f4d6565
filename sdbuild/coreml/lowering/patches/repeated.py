"""Trace what is repeated once: a module that was traced before, on inputs that look the same, is copied in the graph.

A denoiser consists of a few kinds of blocks, each of which occurs two to sixty times with other weights. torch traces
every one of them, some milliseconds for each operation. Here only the first of each kind is traced. A later one leaves
a single node in the graph, its stand-in; afterwards the first one's nodes are copied to its place, with its own
parameters. The graph is the same as that of tracing everything.

Two modules are of one kind if they consist of the same classes with the same attributes, and parameters and buffers of
the same shapes. A call is like another if its tensors have the same shapes, strides and types, and all else is equal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import getitem
from typing import Any

import torch
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.fx import Node
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.coreml.lowering.patches.single_run import share_memory
from sdbuild.known_source import known

_LIBRARY = "sdbuild"
_FEWEST_PARAMETERS = 4
"""Fewer make a single layer, which is traced as fast as a stand-in."""

_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size, type)
_OF_MODULES = frozenset(name for name in vars(torch.nn.Module()) if name.startswith("_"))


class UnrepeatableError(Exception):
    """A stand-in cannot be replaced; the module must be traced as a whole."""


@dataclass(frozen=True)
class _Template:
    """The first call of its kind, in the graph.

    Attributes:
        path: the module's.
        inputs: the nodes of the tensors that it was given.
        nodes: what the call added to the graph, in order.
        outputs: those of them whose tensors it returned.
        layouts: shape, strides and type of each of these.
        result: how the tensors stand in what it returned.
    """

    path: str
    inputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Node, ...]
    layouts: tuple[tuple[torch.Size, tuple[int, ...], torch.dtype], ...]
    result: TreeSpec


class StandIns:
    """The kinds of calls of one trace, and their stand-ins."""

    def __init__(self) -> None:
        self._templates: list[_Template] = []
        self._known: dict[Hashable, int] = {}

    def results(self, inputs: Sequence[torch.Tensor], number: int, path: str) -> list[torch.Tensor]:
        """What a template's stand-in returns, in the layout of what its first call returned."""
        return [
            torch.empty_strided(shape, strides, dtype=dtype, device=inputs[0].device)
            for shape, strides, dtype in self._templates[number].layouts
        ]

    def call(self, forward: Callable[..., Any], kind: int, path: str, *arguments: Any, **options: Any) -> Any:
        """Call a module, or let its stand-in be called."""
        leaves, form = tree_flatten((arguments, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        like = _likeness(leaves)
        if like is None:
            return forward(*arguments, **options)
        key = (kind, str(form), like)
        number = self._known.get(key)
        if number is not None:
            return tree_unflatten(_operator()(tensors, number, path), self._templates[number].result)
        tracer = _tracer()
        graph = tracer.graph
        given, last = _nodes(tensors, tracer), graph._root.prev
        returned = forward(*arguments, **options)
        results, form = tree_flatten(returned)
        outputs = _nodes(results, tracer)
        nodes = []
        while last is not graph._root.prev:
            last = last.next
            nodes.append(last)
        if given is None or outputs is None or not set(outputs) <= set(nodes):
            return returned
        if given == _nodes(tensors, tracer) and not share_memory(tensors, results):
            self._known[key] = len(self._templates)
            layouts = tuple((result.shape, result.stride(), result.dtype) for result in results)
            self._templates.append(_Template(path, given, tuple(nodes), outputs, layouts, form))
        return returned

    def expand(self, program: Any) -> None:
        """Replace every stand-in in an exported program's graph; no Python source is made of the result.

        Raises:
            UnrepeatableError: a module uses something that is neither its input nor its own.
        """
        graph = program.graph
        places = _Places(program)
        stands: list[Node] = list(graph.find_nodes(op="call_function", target=_operator()))
        while stands:
            stands += self._replace(stands.pop(), places, program.graph_signature)

    def _replace(self, stand: Node, places: _Places, signature: Any) -> list[Node]:
        """Put a copy of a template in a stand-in's place; returns the stand-ins within the copy."""
        inputs, number, own = stand.args
        assert isinstance(inputs, Sequence)
        assert isinstance(number, int)
        template = self._templates[number]
        if any(node.graph is not stand.graph or node._erased for node in (*template.inputs, *template.outputs)):
            raise UnrepeatableError(own)
        renamed = partial(_moved, template.path, str(own))
        inside = set(template.nodes)
        copies: dict[Node, Any] = dict(zip(template.inputs, inputs, strict=True))

        def used_instead(used: Node) -> Node:
            copy: Node | None = copies.get(used)
            return copy or places.instead_of(used, inside, renamed)

        within = []
        with stand.graph.inserting_before(stand):
            for node in template.nodes:
                if node._erased:
                    continue
                copy = copies[node] = stand.graph.node_copy(node, used_instead)
                copy.meta = _meta(node, template.path, stand, renamed)
                if copy.target is _operator():
                    copy.args = (*copy.args[:2], renamed(str(copy.args[2])))
                    within.append(copy)
        for taken in list(stand.users):
            assert taken.target is getitem
            position = taken.args[1]
            assert isinstance(position, int)
            copy = copies[template.outputs[position]]
            taken.replace_all_uses_with(copy)
            signature.replace_all_uses(taken.name, copy.name)  # where it is a result of the whole module
            stand.graph.erase_node(taken)
        stand.graph.erase_node(stand)
        return within


class _Places:
    """Where a module's own parameters and buffers enter the graph."""

    def __init__(self, program: Any) -> None:
        signature = program.graph_signature
        self._paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._shared = set(signature.inputs_to_lifted_tensor_constants)
        placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        self._nodes: dict[str, Node] = {path: placeholders[name] for name, path in self._paths.items()}

    def instead_of(self, used: Node, inside: set[Node], renamed: Callable[[str], str]) -> Node:
        """What a copy uses in place of a node that is neither an input nor a copy."""
        if used.op == "get_attr" or used.name in self._shared:
            return used
        path = self._paths.get(used.name)
        if used in inside or path is None or (own := self._nodes.get(renamed(path))) is None or own is used:
            raise UnrepeatableError(used.name)
        return own


@contextmanager
def with_stand_ins(module: torch.nn.Module) -> Iterator[StandIns]:
    """Within this context, while `module` is traced, repeated submodules are represented by stand-ins."""
    stand_ins = StandIns()
    kinds: dict[Hashable, list[tuple[str, torch.nn.Module]]] = {}
    for path, part in module.named_modules():
        if path and (kind := _kind(part)) is not None:
            kinds.setdefault(kind, []).append((path, part))
    twins = [parts for parts in kinds.values() if len(parts) > 1]
    with torch.library._scoped_library(_LIBRARY, "FRAGMENT") as library:
        library.define("repeated(Tensor[] inputs, int number, str path) -> Tensor[]")
        torch.library.register_fake(f"{_LIBRARY}::repeated", stand_ins.results, lib=library)
        try:
            # Kinds are long: their numbers are compared when modules are called.
            for number, parts in enumerate(twins):
                for path, part in parts:
                    part.forward = partial(stand_ins.call, part.forward, number, path)
            yield stand_ins
        finally:
            for parts in twins:
                for _, part in parts:
                    del part.forward


def _operator() -> Any:
    return getattr(torch.ops, _LIBRARY).repeated.default


def _kind(module: torch.nn.Module) -> Hashable | None:
    """What two modules that compute the same have in common; None for what is not worth it or not known well enough."""
    if "forward" in module.__dict__ or sum(1 for _ in module.parameters()) < _FEWEST_PARAMETERS:
        return None
    parts = []
    for path, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            return None
        attributes = tuple(
            (name, _plain(value)) for name, value in sorted(part.__dict__.items()) if name not in _OF_MODULES
        )
        tensors = tuple(
            (name, tuple(tensor.shape), tensor.dtype, tensor.is_meta)
            for name, tensor in (*part._parameters.items(), *part._buffers.items())
            if tensor is not None
        )
        parts.append((path, type(part), attributes, tensors))
    return tuple(parts)


def _plain(value: Any) -> Hashable:
    """A value that is equal where two attributes mean the same, or else one that is like no other."""
    if isinstance(value, _PLAIN):
        return (type(value), value)
    if isinstance(value, tuple | list):
        return (type(value), *map(_plain, value))
    return id(value)


def _likeness(leaves: Sequence[Any]) -> Hashable | None:
    """What two calls have in common that add the same to a graph; None for calls with other things than tensors."""
    like: list[Hashable] = []
    seen: dict[int, int] = {}
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            same = seen.setdefault(id(leaf), len(seen))
            like.append((same, leaf.shape, leaf.stride(), leaf.dtype))
        elif isinstance(leaf, _PLAIN):
            like.append(_plain(leaf))
        else:
            return None
    return tuple(like)


def _tracer() -> Any:
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    mode = get_proxy_mode()
    assert mode is not None
    return mode.tracer


def _nodes(tensors: Sequence[Any], tracer: Any) -> tuple[Node, ...] | None:
    """The nodes that compute tensors, where each is the result of one."""
    from torch.fx.experimental.proxy_tensor import get_proxy_slot

    nodes = []
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            return None
        inner = tensor
        if isinstance(tensor, FunctionalTensor):
            torch._sync(tensor)  # type: ignore[attr-defined, no-untyped-call]
            inner = torch._from_functional_tensor(tensor.elem)
        slot: Any = get_proxy_slot(inner, tracer, None)
        if slot is None:
            return None
        nodes.append(slot.proxy.node)
    return tuple(nodes)


def _moved(old: str, new: str, path: str) -> str:
    """The path of a part of the module `old` in the module `new`."""
    return new + path[len(old) :] if path == old or path.startswith(old + ".") else path


def _meta(node: Node, path: str, stand: Node, renamed: Callable[[str], str]) -> dict[str, Any]:
    """A node's notes, with the modules of its stand-in and, below them, its own."""
    stack = dict(stand.meta["nn_module_stack"])
    for name, (part, kind) in node.meta["nn_module_stack"].items():
        if part == path or part.startswith(path + "."):
            stack[name.replace(path, renamed(path), 1)] = (renamed(part), kind)
    return {**node.meta, "nn_module_stack": stack}


PATCH = Patch(
    name="what is repeated is traced once",
    why="torch traces every block of a denoiser, some milliseconds for each operation",
    without="tracing takes several times as long",
    equality_test="tests/coreml/test_repeated.py",
    sources=(
        *known(
            "torch.fx.experimental.proxy_tensor",
            {
                "get_proxy_mode": (
                    "d76e6af53cdad230",
                    "28e74794ae0985bb",
                ),
                "get_proxy_slot": (
                    "644c49e7c3ebf377",
                    "0f77318bcb9b1066",
                ),
            },
        ),
        *known(
            "torch.library",
            {
                "_scoped_library": ("6ade7b6fd1c1f9d2",),
            },
        ),
        *known(
            "torch.export.graph_signature",
            {
                "ExportGraphSignature.replace_all_uses": ("02da778859a771e3",),
            },
        ),
    ),
    made=with_stand_ins,
)
