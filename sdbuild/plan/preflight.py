"""When the recipe room's rules are asked: before any work, and again as soon as the checkpoint's files are known."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from sdbuild.checkpoints.facts import CheckpointFacts, known_facts, read_checkpoint_facts
from sdbuild.checkpoints.files import COMPONENT_FOLDERS, SINGLE_FILE, is_card
from sdbuild.plan.accounts import Accounts
from sdbuild.plan.loras import check_loras
from sdbuild.plan.planner import Plan
from sdbuild.plan.sources import resolve_source
from sdbuild.plan.status import Statuses
from sdbuild.plan.verdict import check_rules, warn
from sdbuild.recipe.diagnostics import Diagnostic
from sdbuild.recipe.load import resolve_for_target
from sdbuild.recipe.references import Lora
from sdbuild.store import Store


class Preflight:
    """The rules' verdict on one plan; each method raises `RecipeError` when a rule is broken and not allowed.

    Attributes:
        facts: what is known of the checkpoint so far.
        accounts: what becomes of everything in the sources.
    """

    def __init__(self, plan: Plan, statuses: Statuses, store: Store) -> None:
        self._plan = plan
        self._statuses = statuses
        self._store = store
        self._sources = [
            action for action in plan.graph if action.stage.name == "source" and action.component in COMPONENT_FOLDERS
        ]
        self._seen: set[str] = set()
        self._warned: set[Diagnostic] = set()
        self._judged_loras: set[int] = set()
        self.accounts = Accounts(plan.graph, statuses, store)
        self.facts: CheckpointFacts | None = (
            known_facts(plan.loaded.recipe.model) if plan.options.source is None else None
        )

    def before_the_build(self) -> None:
        """Apply the rules with what is at hand: a local checkpoint, or files that were fetched before.

        Fetched files are looked at only when something must run: an up-to-date build has passed already.
        """
        self._apply(self._plan.model.facts)
        self._check_loras()
        if any(not self._statuses[action].cached for action in self._plan.graph):
            self.with_fetched_files()

    def with_fetched_files(self) -> None:
        """Apply the rules to files that have been fetched, and give account of all that are here."""
        self._check_loras()
        if self._plan.model.facts is None:
            self._apply_to_fetched()
        self.accounts.check()

    def _apply_to_fetched(self) -> None:
        """Apply the rules again only when there are more files than before."""
        fetched = {
            action.component: digest
            for action in self._sources
            for digest in [self._statuses[action].digest]
            if digest is not None
        }
        if "index" in fetched and set(fetched) != self._seen:
            self._seen = set(fetched)
            self._apply(self._facts(fetched))

    def _check_loras(self) -> None:
        """Judge every LoRA whose files are here, once."""
        loaded, here = self._plan.loaded, {}
        for index, lora in enumerate(loaded.recipe.loras):
            if index not in self._judged_loras and (files := self._lora_files(index, lora.resolved)):
                here[index] = files
        if not here:
            return
        components = {c.value for t in self._plan.targets.values() for c in resolve_for_target(loaded, t).components}
        model = self._plan.model if self._plan.model.path is not None else None
        check_loras(loaded, frozenset(components), here, model)
        self._judged_loras |= here.keys()

    def _lora_files(self, index: int, lora: Lora) -> Mapping[str, Path]:
        """A LoRA's files: where they lie on this machine, or as they were fetched."""
        source = resolve_source(self._plan.loaded, lora)
        if source.path is not None:
            return source.files(SINGLE_FILE, None)
        name = f"lora-{index + 1}"
        for action in self._plan.graph:
            if action.stage.name == "source" and action.component == name:
                digest = self._statuses[action].digest
                files = self._store.locate(digest) if digest is not None else None
                return {key: path for key, path in (files or {}).items() if not is_card(key)}
        return {}

    def _apply(self, facts: CheckpointFacts | None) -> None:
        self.facts = facts or self.facts
        warnings = check_rules(self._plan.loaded, self._plan.targets.values(), facts)
        warn(warning for warning in warnings if warning not in self._warned)
        self._warned.update(warnings)

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
