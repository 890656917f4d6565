"""`targets`: what can be built for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.console.command import VariableCommand
from sdbuild.console.tables import write_table
from sdbuild.recipe.catalogue import catalogue_directories, find_targets
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.load import load_target


class Command(VariableCommand):
    """List the targets."""

    name = "targets"
    doc_purpose = "list the device targets, your own first"

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the table of targets."""
        rows, status = [], 0
        for path in find_targets(_targets()):
            try:
                target = load_target(str(path), _targets())
            except RecipeError:
                rows.append((path.stem, "not valid: see `check`", *[""] * 5))
                status = 2
            else:
                rows.append(_target_row(target))
        write_table(("target", "device", "chip", "memory", "system", "compute unit", "attention"), rows)
        return status


def _target_row(target: Any) -> tuple[str, ...]:
    return (
        target.name,
        target.device,
        target.chip,
        f"{target.memory_gb:g} GB, {target.app_memory_gb:g} for an app",
        target.system,
        target.compute_unit.value,
        target.attention_implementation.value,
    )


def _targets() -> list[Path]:
    return catalogue_directories("targets", Path.cwd())
