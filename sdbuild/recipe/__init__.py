"""Recipes and targets: the language, its diagnostics, and the preflight rules."""

from sdbuild.recipe.catalogue import catalogue_directories, find_recipes, find_targets
from sdbuild.recipe.diagnostics import Diagnostic, RecipeError, Severity, Span, render
from sdbuild.recipe.facts import (
    CheckpointFacts,
    ComponentFacts,
    Family,
    known_facts,
    read_checkpoint_facts,
    read_component_facts,
    read_single_file_facts,
)
from sdbuild.recipe.load import (
    LoadedRecipe,
    LoadedTarget,
    load_recipe,
    load_target,
    load_target_with_positions,
    resolve_for_target,
)
from sdbuild.recipe.preflight import overruled, preflight
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.references import ModelKind, ModelReference, Reference
from sdbuild.recipe.registry import RULES
from sdbuild.recipe.rule import Rule
from sdbuild.recipe.settings import ContactSheet, Gates, Latent, Quantization, Unet
from sdbuild.recipe.target import Target
from sdbuild.recipe.vocabulary import AttentionImplementation, Component, ComputeUnit, DeploymentTarget

__all__ = [
    "RULES",
    "AttentionImplementation",
    "CheckpointFacts",
    "Component",
    "ComponentFacts",
    "ComputeUnit",
    "ContactSheet",
    "DeploymentTarget",
    "Diagnostic",
    "Family",
    "Gates",
    "Latent",
    "LoadedRecipe",
    "LoadedTarget",
    "ModelKind",
    "ModelReference",
    "Quantization",
    "Recipe",
    "RecipeError",
    "Reference",
    "Rule",
    "Severity",
    "Span",
    "Target",
    "Unet",
    "catalogue_directories",
    "find_recipes",
    "find_targets",
    "known_facts",
    "load_recipe",
    "load_target",
    "load_target_with_positions",
    "overruled",
    "preflight",
    "read_checkpoint_facts",
    "read_component_facts",
    "read_single_file_facts",
    "render",
    "resolve_for_target",
]
