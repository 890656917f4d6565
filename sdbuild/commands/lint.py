"""`lint`: built bundles against what the Swift package reads."""

from collections.abc import Mapping

from sdbuild.bundle.layout import BUILD_HOST, DOCUMENT
from sdbuild.console.command import VariableCommand
from sdbuild.console.tables import write_table
from sdbuild.console.variables import OUT, RECIPE, TARGET
from sdbuild.paths import shown_path
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.options import Options, parse_options
from sdbuild.plan.planner import bundles_of, load


class Command(VariableCommand):
    """Lint built bundles."""

    name = "lint"
    doc_purpose = "check built bundles against what the Swift package reads"
    variables = (RECIPE, TARGET, OUT)

    def act(self, variables: Mapping[str, str]) -> int:
        """Write every violation."""
        return lint_bundles(parse_options(variables))


def lint_bundles(options: Options) -> int:
    """Lint a recipe's bundles where they have been put; writes a table of violations.

    Returns:
        0 when there is no violation, else 1.

    Raises:
        PlanError: the target is not one of the recipe's, or a bundle has not been built.
    """
    from sdbuild.bundle.document import read_document
    from sdbuild.bundle.integrity import was_built_here
    from sdbuild.bundle.linter import lint_bundle
    from sdbuild.bundle.linter.client import notes

    loaded, targets = load(options)
    bundles = bundles_of(loaded, targets)
    if options.target is not None and options.target not in bundles:
        raise PlanError(f"target={options.target}: not a target of the recipe{nearest(options.target, bundles)}")
    rows, clean, told = [], [], []
    for target in [options.target] if options.target is not None else list(bundles):
        bundle = options.out / loaded.recipe.name / target
        if not bundle.is_dir():
            raise PlanError(f"{bundle}: no bundle here; build it first with recipe={options.recipe} target={target}")
        violations = lint_bundle(bundle)
        rows += [(target, violation.rule, violation.where, violation.what) for violation in violations]
        genuine = was_built_here(bundle)
        if not genuine:
            strange = f"is not the one that was built here, by {bundle.name}.{BUILD_HOST}"
            rows.append((target, "document-digest", DOCUMENT, strange))
        if not violations and genuine:
            clean.append(bundle)
            told += [(bundle, note) for note in notes(read_document(bundle))]
    if rows:
        write_table(("target", "rule", "where", "what"), rows)
    for bundle in clean:
        print(f"{shown_path(bundle)}: no violations")
    for bundle, note in told:
        print(f"{shown_path(bundle)}: note: {note}")
    return 1 if rows else 0
