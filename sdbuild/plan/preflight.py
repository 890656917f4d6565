"""When the recipe room's rules are asked: before any work, and again as soon as the checkpoint's files are known."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from sdbuild.checkpoints.facts import CheckpointFacts, known_facts, read_checkpoint_facts
from sdbuild.checkpoints.files import COMPONENT_FOLDERS
from sdbuild.plan.planner import Plan
from sdbuild.plan.status import Statuses
from sdbuild.plan.verdict import check_rules
from sdbuild.store import Store


class Preflight:
    """The rules' verdict on one plan; each method raises `RecipeError` when a rule is broken and not allowed.

    Attributes:
        facts: what is known of the checkpoint so far.
    """

    def __init__(self, plan: Plan, statuses: Statuses, store: Store) -> None:
        self._plan = plan
        self._statuses = statuses
        self._store = store
        self._sources = [
            action for action in plan.graph if action.stage.name == "source" and action.component in COMPONENT_FOLDERS
        ]
        self._seen: set[str] = set()
        self.facts: CheckpointFacts | None = (
            known_facts(plan.loaded.recipe.model) if plan.options.source is None else None
        )

    def before_the_build(self) -> None:
        """Apply the rules with what is at hand: a local checkpoint, or files that were fetched before.

        Fetched files are looked at only when something must run: an up-to-date build has passed already.
        """
        if (facts := self._plan.model.facts) is not None:
            self._apply(facts)
            return
        self._apply(None)
        if any(not self._statuses[action].cached for action in self._plan.graph):
            self.with_fetched_files()

    def with_fetched_files(self) -> None:
        """Apply the rules to the files that have been fetched; again only when there are more of them than before."""
        if self._plan.model.facts is not None:
            return
        fetched = {
            action.component: digest
            for action in self._sources
            for digest in [self._statuses[action].digest]
            if digest is not None
        }
        if "index" in fetched and set(fetched) != self._seen:
            self._seen = set(fetched)
            self._apply(self._facts(fetched))

    def _apply(self, facts: CheckpointFacts | None) -> None:
        self.facts = facts or self.facts
        check_rules(self._plan.loaded, self._plan.targets.values(), facts)

    def _facts(self, fetched: Mapping[str, str]) -> CheckpointFacts:
        """The facts of a checkpoint that is put together from artifacts, with links in a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="sdbuild-facts-") as temporary:
            for component, digest in fetched.items():
                folder = Path(temporary) / COMPONENT_FOLDERS[component]
                for name, file in (self._store.locate(digest) or {}).items():
                    place = folder / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    # The index has every component's configuration too, so that it is enough by itself.
                    place.unlink(missing_ok=True)
                    place.symlink_to(file)
            return read_checkpoint_facts(Path(temporary))
