"""Recipe × targets → the graph of actions, each piece of work once.

Every target is drafted for itself; drafts that ask for the same work become one action. Where targets differ, a
task's name carries the first target that uses it (`convert:unet@mac-studio-m2-ultra`), whatever targets were selected.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdbuild import stages
from sdbuild.plan.action import Action, Graph


@dataclass(frozen=True, eq=False)
class Draft:
    """An action before it has its final name; the fields are those of `Action`."""

    base: str
    stage: str
    component: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, "Draft"] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """The same for two drafts exactly when they ask for the same work."""
        asked = {
            "stage": self.stage,
            "parameters": self.parameters,
            "inputs": {role: producer.identity for role, producer in self.inputs.items()},
            "files": {path: str(file) for path, file in self.files.items()},
            "tools": self.tools,
        }
        return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def merge(recipe: str, drafts: Mapping[str, Iterable[Draft]]) -> Graph:
    """Make one graph of the drafts of several targets.

    Args:
        recipe: the recipe's name.
        drafts: target → its drafts, producers before consumers.
    """
    users: dict[str, list[str]] = {}
    works: dict[str, dict[str, None]] = {}
    for target, target_drafts in drafts.items():
        for draft in target_drafts:
            users.setdefault(draft.identity, []).append(target)
            works.setdefault(draft.base, {})[draft.identity] = None

    actions: dict[str, Action] = {}
    for target_drafts in drafts.values():
        for draft in target_drafts:
            if draft.identity not in actions:
                targets = tuple(users[draft.identity])
                shared = len(works[draft.base]) == 1
                actions[draft.identity] = Action(
                    name=draft.base if shared else f"{draft.base}@{targets[0]}",
                    stage=stages.load_stage(draft.stage),
                    component=draft.component,
                    parameters=draft.parameters,
                    inputs={role: actions[producer.identity] for role, producer in draft.inputs.items()},
                    files=draft.files,
                    tools=draft.tools,
                    targets=targets,
                    identity=draft.identity,
                )
    return Graph(recipe, tuple(actions.values()))
