"""Preflight rules on T2I-Adapters: the families that they are for."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.adapter_kinds import FULL_XL, published_config
from sdbuild.recipe.rule import Context, Finding, Rule, rule
from sdbuild.recipe.rules import family_of


@rule(
    "t2i-adapter-unsupported-family",
    reason="T2I-Adapters were trained for SD 1.x and for SDXL's base; no other UNet knows what their features mean.",
    source="Mou et al. 2023, T2I-Adapter; https://huggingface.co/TencentARC",
)
def _unsupported_family(context: Context) -> Iterator[Finding]:
    """T2I-Adapters are for SD 1.x and SDXL's base."""
    family = family_of(context)
    if context.recipe.t2i_adapters and family not in ("sd1", "sdxl", None):
        yield Finding(("t2i_adapters",), f"T2I-Adapters with a checkpoint of the family {family}", "remove them")


@rule(
    "t2i-adapter-of-another-family",
    reason="The features of an adapter for SD 1.x have other sizes than those for SDXL.",
    source="Mou et al. 2023, T2I-Adapter; `adapter_type` in the adapter's config.json",
)
def _another_family(context: Context) -> Iterator[Finding]:
    """A published T2I-Adapter was trained for the checkpoint's family."""
    family = family_of(context)
    for index, adapter in enumerate(context.recipe.t2i_adapters):
        config = published_config(adapter)
        if config is None or family is None:
            continue
        if (config["adapter_type"] == FULL_XL) != (family == "sdxl"):
            wanted = "SDXL" if family == "sdxl" else "Stable Diffusion 1"
            message = f"`{adapter.version}` was trained for another family than {family}"
            yield Finding(("t2i_adapters", index, "version"), message, f"name an adapter for {wanted}")


T2I_ADAPTER_RULES: tuple[Rule, ...] = (_unsupported_family, _another_family)
