"""From a command line's options to a checked graph: recipe and targets loaded, sources found, drafts merged."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sdbuild.checkpoints.files import CheckpointFilesError
from sdbuild.families import of_components
from sdbuild.plan.action import Graph
from sdbuild.plan.draft import TargetPlan
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.graph import Draft, merge
from sdbuild.plan.options import Options
from sdbuild.plan.sheet import sheet_drafts
from sdbuild.plan.sources import Source, resolve_source
from sdbuild.plan.tools import core_ml_compiler
from sdbuild.plan.verdict import check_rules
from sdbuild.recipe.catalogue import catalogue_directories, find_targets
from sdbuild.recipe.load import LoadedRecipe, load_recipe, load_target, resolve_for_target
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.references import Reference
from sdbuild.recipe.target import Target


@dataclass(frozen=True)
class Plan:
    """What a command line asks for, all of it known before any work.

    Attributes:
        options: the command line.
        loaded: the recipe.
        targets: the target of each bundle that was selected, by the bundle's name.
        model: where the pipeline's model comes from.
        graph: the actions that the selected targets need.
        outputs: task of a bundle or of the contact sheet → where its result is put.
    """

    options: Options
    loaded: LoadedRecipe
    targets: Mapping[str, Target]
    model: Source
    graph: Graph
    outputs: Mapping[str, Path]


def load(options: Options) -> tuple[LoadedRecipe, dict[str, Target]]:
    """The recipe that was asked for and all of its targets.

    Raises:
        RecipeError: the recipe or one of its targets cannot be used.
    """
    known = {path.stem: path for path in find_targets(catalogue_directories("targets", Path.cwd()))}
    loaded = load_recipe(
        options.recipe, catalogue_directories("recipes", Path.cwd()), targets=known, settings=options.settings
    )
    return loaded, {name: _target(known[name], known[name].stat().st_mtime_ns) for name in loaded.recipe.targets}


@cache
def _target(path: Path, written: int) -> Target:
    """A target's file, read once for all recipes of a catalogue; `written` tells two states of the file apart."""
    return load_target(str(path), [])


def bundles_of(loaded: LoadedRecipe, targets: Mapping[str, Target]) -> dict[str, tuple[Target, Recipe]]:
    """Every bundle of a recipe by name: one a target and size, the first size under the target's own name."""
    found = {}
    for name, target in targets.items():
        for index, recipe in enumerate(resolve_for_target(loaded, target).at_sizes()):
            found[f"{name}-{recipe.latent.picture}" if index else name] = target.serving(recipe.generation), recipe
    return found


def make_plan(options: Options) -> Plan:
    """Plan a build; looks at recipes, targets and the listings of local checkpoints, and nowhere else.

    Raises:
        RecipeError: the recipe or one of its targets cannot be used.
        PlanError: the target is not one of the recipe's, or a directory is missing.
        CheckpointFilesError: a local checkpoint lacks files.
    """
    loaded, targets = load(options)
    bundles = bundles_of(loaded, targets)
    selected = tuple(bundles)
    if options.target is not None:
        if options.target not in bundles:
            listed = ", ".join(bundles)
            raise PlanError(
                f"target={options.target}: the recipe '{loaded.recipe.name}' does not list it"
                f"{nearest(options.target, bundles)}\n  its targets are {listed}"
            )
        selected = (options.target,)
    model = resolve_source(loaded, loaded.recipe.model, options.source)
    try:
        graph = make_graph(loaded, targets, options).restricted(selected)
    except CheckpointFilesError:
        # What a checkpoint lacks is told best by the rule that asks for it, with the line of the recipe.
        if model.facts is not None:
            check_rules(loaded, (bundles[name][0] for name in selected), model.facts)
        raise
    place = options.out / loaded.recipe.name
    outputs = {action.name: place / action.component for action in graph.products()}
    return Plan(options, loaded, {name: bundles[name][0] for name in selected}, model, graph, outputs)


def _projection(loaded: LoadedRecipe, recipe: Recipe) -> Path | None:
    """The multilingual projection's file."""
    if recipe.multilingual_projection is None:
        return None
    path = loaded.path_of(recipe.multilingual_projection.version)
    if not path.is_file():
        raise PlanError(f"{loaded.path}: the multilingual projection {path} does not exist; correct its version")
    return path


def make_graph(loaded: LoadedRecipe, targets: Mapping[str, Target], options: Options) -> Graph:
    """The actions that a recipe needs for all of its targets."""
    compiler = core_ml_compiler()

    @cache  # one listing of a directory serves all targets
    def source(reference: Reference, override: Path | None) -> Source:
        return resolve_source(loaded, reference, override)

    drafts: dict[str, tuple[Draft, ...]] = {}
    for name, (target, recipe) in bundles_of(loaded, targets).items():
        model = source(recipe.model, options.source)
        tokenizer = recipe.tokenizer
        if tokenizer is None and model.is_single_file and not recipe.model.is_single_file:
            # source=FILE stands for the model, but it has no tokenizer to stand for the model's.
            tokenizer = recipe.model
        plan = TargetPlan(
            recipe=recipe,
            target=target,
            name=name,
            family=of_components(recipe.components),
            model=model,
            controlnets=tuple(source(reference, None) for reference in recipe.controlnets),
            t2i_adapters=tuple(source(reference, None) for reference in recipe.t2i_adapters),
            refiner=None if recipe.refiner is None else source(recipe.refiner, None),
            projection=_projection(loaded, recipe),
            vae=source(recipe.vae, None) if recipe.vae is not None else None,
            denoiser=source(recipe.denoiser, None) if recipe.denoiser is not None else None,
            loras=tuple((source(lora.resolved, None), lora.weight) for lora in recipe.loras),
            textual_inversions=tuple((source(each.resolved, None), each.token) for each in recipe.textual_inversions),
            tokenizer=source(tokenizer, None) if tokenizer is not None else None,
            verify=options.verify,
            compiler=compiler,
        )
        drafts[name] = plan.drafts()
        if recipe.contact_sheet is not None and name == loaded.recipe.targets[0]:
            drafts[name] += tuple(sheet_drafts(plan, recipe.contact_sheet, drafts[name]))
    return merge(loaded.recipe.name, drafts)
