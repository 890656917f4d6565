"""What several rules derive from what they look at."""

from __future__ import annotations

from sdbuild.checkpoints.facts import XL_FAMILIES
from sdbuild.recipe.rules.rule import Context
from sdbuild.recipe.vocabulary import Component


def family_of(context: Context) -> str | None:
    """The checkpoint's family; without facts, what the components tell: SDXL's refiner has the second encoder alone."""
    if context.facts is not None:
        return context.facts.family
    components = context.recipe.components
    if Component.TRANSFORMER in components:
        return "sd3"
    if Component.TEXT_ENCODER_2 not in components:
        return None
    return "sdxl" if Component.TEXT_ENCODER in components else "sdxl-refiner"


def title(context: Context) -> str | None:
    """What the newer families, whose pipelines in the Swift package do less, are called; None for the others."""
    family = family_of(context)
    return "SDXL" if family in XL_FAMILIES else "SD 3" if family == "sd3" else None


def patch_size(context: Context) -> int:
    """Rows and columns of the transformer's patches."""
    return int((context.facts.config("transformer") if context.facts is not None else {}).get("patch_size") or 2)
