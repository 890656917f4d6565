"""The rule on a device's memory, and what it says would fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from sdbuild.checkpoints.facts import CheckpointFacts
from sdbuild.compression.look_up_tables import widths
from sdbuild.estimate.bundle_memory import MemoryEstimate, estimate
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.settings import Latent, Quantization
from sdbuild.recipe.target import Target
from sdbuild.recipe.vocabulary import UNET_REFINER, Component

_GIGABYTE = 10**9
_SMALLEST_LATENT = 32
_PARTS_SHOWN = 3
Change = tuple[str, Recipe]
"""What to write, and the recipe with it."""


@rule(
    "exceeds-app-memory",
    reason="The system ends an app that uses more than its share of memory, most often while the models are loaded.",
    source="ml-stable-diffusion#291, #298, #171, #49; off-grid-ai/OGAM#613; docs/explanation/memory.md",
)
def _exceeds_app_memory(context: Context) -> Iterator[Finding]:
    """What the models need in memory is no more than an app may use on the target."""
    if context.facts is None:
        return
    found = estimate(context.recipe, context.target, context.facts)
    if not found.models or found.fits:
        return
    way = "one model at a time" if found.reduce_memory else "all models loaded"
    message = (
        f"about {found.needed / _GIGABYTE:.1f} GB with {way}, but an app on `{context.target.name}` may use "
        f"{found.budget / _GIGABYTE:.1f} GB ({_largest(found)})"
    )
    largest = max(found.models, key=lambda model: model.bytes).part
    yield Finding(("quantization", largest), message, _help(context.recipe, context.target, context.facts))


def _largest(found: MemoryEstimate) -> str:
    """The parts that take most, for people."""
    largest = sorted(found.models, key=lambda model: -model.bytes)[:_PARTS_SHOWN]
    return ", ".join(f"{model.part} {model.bytes / _GIGABYTE:.1f}" for model in largest)


def _help(recipe: Recipe, target: Target, facts: CheckpointFacts) -> str:
    """The changes of which each alone is enough; else the first few that are enough together."""

    def enough(change: Change) -> bool:
        return estimate(change[1], target, facts).fits

    kinds = [_loading(recipe), _bits(recipe), _smaller(recipe)]
    single = [next(filter(enough, kind), None) for kind in kinds]
    if found := [text for text, _ in filter(None, single)]:
        return f"write {', or '.join(found)}"
    for loading, bits in product(_loading(recipe) or [("", recipe)], _bits(recipe) or [("", recipe)]):
        fewer = loading[1].model_copy(update={"quantization": bits[1].quantization})
        for latent in [("", recipe), *_smaller(recipe)]:
            changed = fewer.model_copy(update={"latent": latent[1].latent})
            if enough(("", changed)):
                return f"write {' and '.join(filter(None, [loading[0], bits[0], latent[0]]))}"
    return "build for another target"


def _loading(recipe: Recipe) -> list[Change]:
    """One model at a time, where all are loaded now."""
    if recipe.reduce_memory:
        return []
    return [("`reduce_memory: true`, where the app does so too", recipe.model_copy(update={"reduce_memory": True}))]


def _bits(recipe: Recipe) -> list[Change]:
    """Fewer bits for the denoisers, and for all text encoders too, the most bits first."""
    denoiser = Component.TRANSFORMER if Component.TRANSFORMER in recipe.components else Component.UNET
    compression = recipe.compression(denoiser)
    now = 16 if compression is None else compression.bits
    fewer = [bits for bits in reversed(widths(recipe.deployment_target)) if 4 <= bits < now]
    encoders = [name.value for name in recipe.components if name.value.startswith("text_encoder")]
    changes = []
    denoisers = [name.value for name in (Component.UNET, Component.TRANSFORMER) if name in recipe.components]
    denoisers += [UNET_REFINER] if recipe.refiner is not None else []
    for names in (denoisers, [*denoisers, *encoders]):
        for bits in fewer:
            stated = dict.fromkeys(names, bits)
            quantization = Quantization(**(recipe.quantization.named() | stated))
            text = ", ".join(f"{name}: {bits}" for name in names)
            changes.append((f"`quantization: {{{text}}}`", recipe.model_copy(update={"quantization": quantization})))
    return changes


def _smaller(recipe: Recipe) -> list[Change]:
    """Smaller latents of about the same proportions, the largest first."""
    changes = []
    for eighths in (7, 6, 5, 4):
        height, width = (side * eighths // 64 * 8 for side in (recipe.latent.height, recipe.latent.width))
        if min(height, width) >= _SMALLEST_LATENT:
            latent = Latent(height=height, width=width)
            text = f"`latent: {{height: {height}, width: {width}}}`"
            changes.append((text, recipe.model_copy(update={"latent": latent})))
    return changes
