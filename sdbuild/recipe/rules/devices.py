"""Rules on a target's system and processors."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import ComputeUnit


@rule(
    "deployment-target-newer-than-os",
    reason="A model whose specification is newer than the system does not load.",
    source="coremltools documentation, minimum_deployment_target",
)
def _deployment_target_newer(context: Context) -> Iterator[Finding]:
    """The minimum deployment target is not newer than the newest system that runs on the target."""
    target = context.target
    if context.recipe.generation > target.newest_os_generation:
        newest = f"{target.os} {target.newest_os_version or target.os_version}"
        message = f"{context.recipe.minimum_deployment_target}, but `{target.name}` runs {newest} at most"
        help_ = f"write `iOS{min(18, max(16, target.newest_os_generation))}`"
        yield Finding(("minimum_deployment_target",), message, help_)


@rule(
    "all-compute-units-on-ios",
    reason="With all processors allowed the Neural Engine's compiler fails on the UNet, or the app runs out of memory.",
    source="ml-stable-diffusion#51, #49",
)
def _all_compute_units(context: Context) -> Iterator[Finding]:
    """On iPhone and iPad the compute unit is not ALL."""
    target = context.target
    if target.compute_unit is ComputeUnit.ALL and target.os != "macOS":
        message = f"ALL processors for `{target.name}`"
        yield Finding(("compute_unit",), message, "write `compute_unit: CPU_AND_NE`, or `CPU_AND_GPU`")
