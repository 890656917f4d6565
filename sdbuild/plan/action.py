"""An action: one stage with its resolved parameters and inputs, and the document that its key is the digest of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdbuild.plan.tools import installed_version
from sdbuild.stages import Stage

KEY_FORMAT = 1
"""Raised when the meaning of key documents changes; every older result is then out of reach."""


@dataclass(frozen=True, eq=False)
class Action:
    """A node of the build graph.

    Attributes:
        name: what people type and read, such as `convert:unet` or `bundle:iphone-15-pro`.
        stage: what kind of step it is.
        component: the component or bundle that it is about, for tables.
        parameters: all that the stage reads besides its inputs, defaults written out; JSON values.
        inputs: role → the action whose artifact is read under that role.
        files: for the source of a local checkpoint, path in the tree → the user's file; empty for all else. Such an
            action has no key: its artifact's digest is known from the files themselves.
        tools: versions, besides the stage's distributions, that shape the output (the Core ML compiler's build).
        targets: the device targets that use the result.
        identity: the same for two actions, of one recipe or of two, exactly when they ask for the same work.
    """

    name: str
    stage: Stage
    component: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, "Action"] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    identity: str = ""

    def __repr__(self) -> str:
        return f"<Action {self.name}>"


@dataclass(frozen=True)
class Graph:
    """The actions of one recipe for some targets, in an order in which they can run."""

    recipe: str
    actions: tuple[Action, ...]

    def __iter__(self) -> Iterator[Action]:
        return iter(self.actions)

    def __getitem__(self, name: str) -> Action:
        for action in self.actions:
            if action.name == name:
                return action
        raise KeyError(name)

    def products(self) -> tuple[Action, ...]:
        """The actions whose results are put into the output folder: a bundle for each target, and contact sheets."""
        # By their tasks' names: the bundles that a contact sheet is drawn with, its variants, stay in the cache.
        made = (action for action in self.actions if action.stage.product is not None)
        return tuple(action for action in made if action.name.partition(":")[0] == action.stage.name)

    def restricted(self, targets: Iterable[str]) -> "Graph":
        """The part of the graph that some targets need; names stay as they are."""
        wanted = set(targets)
        return Graph(self.recipe, tuple(action for action in self.actions if wanted.intersection(action.targets)))


def closure(action: Action) -> tuple[Action, ...]:
    """Everything that an action depends on, sources first, without the action itself."""
    found: dict[str, Action] = {}

    def visit(node: Action) -> None:
        for producer in node.inputs.values():
            if producer.name not in found:
                visit(producer)
                found[producer.name] = producer

    visit(action)
    # Sources come first, so that a missing or rejected checkpoint ends a build before anything is converted.
    return tuple(sorted(found.values(), key=lambda node: node.stage.name != "source"))


def key_document(action: Action, inputs: Mapping[str, str]) -> dict[str, Any]:
    """All that can change an action's result, as a JSON document.

    Args:
        action: any action with a key, that is any but the source of a local checkpoint.
        inputs: role → digest of the input artifact; roles whose artifact is not known yet may be left out. One without
            files is no input, and must be.
    """
    return {
        "format": KEY_FORMAT,
        "stage": action.stage.name,
        "stage_version": action.stage.version,
        "parameters": dict(action.parameters),
        "inputs": dict(inputs),
        "tools": {**{name: installed_version(name) for name in action.stage.tools}, **action.tools},
    }
