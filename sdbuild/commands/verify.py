"""`verify`: every byte of built bundles against what was built."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdbuild.bundle.integrity import differences
from sdbuild.bundle.layout import DOCUMENT
from sdbuild.console.command import VariableCommand
from sdbuild.console.tables import write_table
from sdbuild.console.variables import OUT, RECIPE, TARGET
from sdbuild.paths import shown_path
from sdbuild.plan.errors import PlanError
from sdbuild.plan.options import parse_options


class Command(VariableCommand):
    """Verify built bundles."""

    name = "verify"
    doc_purpose = "read every byte of the bundles that stand under `out`, and tell what is not as it was built"
    variables = (RECIPE, TARGET, OUT)

    def act(self, variables: Mapping[str, str]) -> int:
        """Write every difference; the status is 1 where there is any."""
        options = parse_options(variables)
        recipe = Path(variables["recipe"]).stem if "recipe" in variables else "*"
        bundles = list(_bundles(options.out, recipe, options.target or "*"))
        if not bundles:
            raise PlanError(
                f"{shown_path(options.out)}: no bundle of that name stands here; build it first, or give out="
            )
        rows = []
        for bundle in bundles:
            print(f"reading {shown_path(bundle)}", file=sys.stderr, flush=True)
            found = list(differences(bundle))
            rows += [(shown_path(bundle), where, what) for where, what in found]
            if not found:
                print(f"{shown_path(bundle)}: as it was built")
        if rows:
            write_table(("bundle", "where", "what"), rows)
        return 1 if rows else 0


def _bundles(out: Path, recipe: str, target: str) -> Iterator[Path]:
    for document in sorted(out.glob(f"{recipe}/{target}/{DOCUMENT}")):
        yield document.parent
