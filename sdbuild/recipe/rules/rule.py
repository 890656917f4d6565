"""What a preflight rule is: a named check with its reason and the place where that is documented."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sdbuild.checkpoints.facts import CheckpointFacts
from sdbuild.families import FAMILIES, Ability, Family, of_components
from sdbuild.families.family import Configs, Descriptor
from sdbuild.recipe.diagnostics import Severity
from sdbuild.recipe.lock import Lock
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.target import Target
from sdbuild.recipe.tree import Mapping
from sdbuild.recipe.validation import Location


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at.

    Attributes:
        recipe: resolved for the target.
        target: the device, with the compute unit that the recipe may state for it.
        facts: what is known of the checkpoint; None when nothing is.
        root: the recipe's tree, resolved for the target.
        lock: what the recipe's repositories are pinned to.
    """

    recipe: Recipe
    target: Target
    facts: CheckpointFacts | None
    root: Mapping
    lock: Lock | None = None

    @property
    def family(self) -> Family | None:
        """The checkpoint's; by the recipe's components where no facts are known. None where neither tells."""
        return self.facts.family if self.facts is not None else of_components(self.recipe.components)

    @property
    def descriptor(self) -> Descriptor | None:
        """What is said of the family."""
        return None if self.family is None else FAMILIES[self.family]

    def can(self, ability: Ability) -> bool:
        """Whether the family's pipeline can be asked for it; an undecided family can."""
        return self.descriptor is None or self.descriptor.can(ability)

    @property
    def title(self) -> str:
        """What people call the family."""
        return "unknown" if self.descriptor is None else self.descriptor.title

    def configs(self) -> Configs:
        """The configurations of the checkpoint's folders, as far as they are known."""
        return {} if self.facts is None else {name: facts.config for name, facts in self.facts.folders.items()}


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule: the place in the recipe, what is wrong there, and what to write instead."""

    location: Location
    message: str
    help: str


Check = Callable[[Context], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named preflight rule.

    Attributes:
        name: what `allow:` takes.
        summary: what a recipe must satisfy.
        reason: what happens otherwise.
        source: where that is documented.
        check: finds where a recipe breaks the rule.
        severity: of a recipe that breaks it and does not allow that.
    """

    name: str
    summary: str
    reason: str
    source: str
    check: Check
    severity: Severity = Severity.ERROR


def rule(name: str, *, reason: str, source: str, severity: Severity = Severity.ERROR) -> Callable[[Check], Rule]:
    """Make a check the rule of that name; its docstring says what a recipe must satisfy."""

    def make(check: Check) -> Rule:
        return Rule(name, " ".join((check.__doc__ or "").split()), reason, source, check, severity)

    return make
