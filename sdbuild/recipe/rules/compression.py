"""Rules on compressed weights."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.compression import CHOICES, GENERATIONS, NONE
from sdbuild.recipe.diagnostics import one_of
from sdbuild.recipe.rules.rule import Context, Finding, rule


@rule(
    "bits-need-newer-target",
    reason="The operation that looks weights up in a table knows other widths only from a newer system on.",
    source="coremltools documentation, constexpr_lut_to_dense of iOS 16 and of iOS 18; OpPalettizerConfig, nbits",
)
def _bits_need_newer_target(context: Context) -> Iterator[Finding]:
    """The minimum deployment target can hold the bits."""
    recipe = context.recipe
    generation = GENERATIONS[recipe.deployment_target]
    holds = [
        bits for bits, choice in CHOICES.items() if isinstance(bits, int) and choice.oldest_generation <= generation
    ]
    for part, spelling in recipe.quantization.named().items():
        chosen = CHOICES.get(spelling)
        if chosen is not None and chosen.oldest_generation > generation:
            message = f"`{part}` with {chosen.bits} bits, which {recipe.minimum_deployment_target} cannot hold"
            newer = f"`minimum_deployment_target: iOS{chosen.oldest_generation}`"
            yield Finding(("quantization", part), message, f"write {one_of(holds)}, or {newer}")


@rule(
    "groups-need-newer-target",
    reason="Up to iOS 17 a look-up table serves a whole tensor.",
    source="coremltools documentation, constexpr_lut_to_dense of iOS 18; OpPalettizerConfig, granularity",
)
def _groups_need_newer_target(context: Context) -> Iterator[Finding]:
    """Groups of channels with look-up tables of their own are for iOS 18, macOS 15 and newer, and for tables only."""
    recipe = context.recipe
    for part, size in recipe.group_size.named().items():
        place, chosen = ("group_size", part), CHOICES.get(recipe.quantization.get(part, NONE))
        grouped = (chosen or next(iter(CHOICES.values()))).in_groups(size)
        if GENERATIONS[recipe.deployment_target] < (18 if grouped is None else grouped.oldest_generation):
            message = f"groups of channels in `{part}`, which {recipe.minimum_deployment_target} cannot hold"
            yield Finding(place, message, "remove it, or write `minimum_deployment_target: iOS18`")
        if chosen is None or grouped is None:
            yield Finding(place, f"`{part}` has no look-up tables", f"write bits for `quantization.{part}`")
