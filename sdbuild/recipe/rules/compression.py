"""Rules on compressed weights."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.recipe.diagnostics import one_of
from sdbuild.recipe.rules.rule import BITS, Context, Finding, rule


@rule(
    "bits-need-newer-target",
    reason="The operation that looks weights up in a table knows other widths only from a newer system on.",
    source="coremltools documentation, constexpr_lut_to_dense of iOS 16 and of iOS 18; OpPalettizerConfig, nbits",
)
def _bits_need_newer_target(context: Context) -> Iterator[Finding]:
    """The minimum deployment target can hold the bits."""
    recipe = context.recipe
    holds = BITS[recipe.deployment_target]
    for part in recipe.quantization.named():
        bits = recipe.bits(part)
        if bits is not None and bits not in holds:
            message = f"`{part}` with {bits} bits, which {recipe.minimum_deployment_target} cannot hold"
            yield Finding(
                ("quantization", part), message, f"write {one_of(holds)}, or `minimum_deployment_target: iOS18`"
            )


@rule(
    "groups-need-newer-target",
    reason="Up to iOS 17 a look-up table serves a whole tensor.",
    source="coremltools documentation, constexpr_lut_to_dense of iOS 18; OpPalettizerConfig, granularity",
)
def _groups_need_newer_target(context: Context) -> Iterator[Finding]:
    """Groups of channels with look-up tables of their own are for iOS 18, macOS 15 and newer, and for tables only."""
    recipe = context.recipe
    for part in recipe.group_size.named():
        place = ("group_size", part)
        if recipe.deployment_target != "iOS18":
            message = f"groups of channels in `{part}`, which {recipe.minimum_deployment_target} cannot hold"
            yield Finding(place, message, "remove it, or write `minimum_deployment_target: iOS18`")
        if recipe.bits(part) is None or recipe.is_linear(part):
            yield Finding(place, f"`{part}` has no look-up tables", f"write bits for `quantization.{part}`")
