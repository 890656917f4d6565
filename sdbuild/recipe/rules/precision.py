"""Rules on the precision that models compute in."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.families import XL_FAMILIES
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import CONTROLNET, T2I_ADAPTER, UNET_REFINER, Component, ComputeUnit


@rule(
    "precision-for-sdxl-vae",
    reason="Activations of SDXL's VAE exceed 65504, the largest half-precision number: the pictures come out black.",
    source="ml-stable-diffusion#304",
)
def _precision_for_sdxl_vae(context: Context) -> Iterator[Finding]:
    """SDXL's own VAE is float32, unless its configuration says that it needs no upcast."""
    if context.family not in XL_FAMILIES or context.recipe.vae is not None:
        return
    if context.facts is not None and context.facts.config("vae").get("force_upcast") is False:
        return
    for part in (Component.VAE_DECODER, Component.VAE_ENCODER):
        if context.recipe.precision.get(part) == "float16":
            yield Finding(("precision", part), f"`{part}` of SDXL in float16", "write `float32`, or leave it out")


@rule(
    "precision-for-sd3-transformer",
    reason="The authors of the Swift package found that the transformer needs single precision.",
    source="README of apple/ml-stable-diffusion, Using Stable Diffusion 3",
)
def _precision_for_sd3_transformer(context: Context) -> Iterator[Finding]:
    """SD 3's transformer is float32."""
    if context.recipe.precision.get(Component.TRANSFORMER) == "float16":
        place = ("precision", Component.TRANSFORMER.value)
        yield Finding(place, "SD 3's transformer in float16", "write `float32`, or leave it out")


@rule(
    "float32-on-neural-engine",
    reason="The Neural Engine computes in half precision alone: the whole UNet would run on the CPU.",
    source="coremltools documentation, Typed Execution",
)
def _float32_on_neural_engine(context: Context) -> Iterator[Finding]:
    """UNet, ControlNets and T2I-Adapters for the Neural Engine are float16."""
    if context.target.compute_unit is not ComputeUnit.CPU_AND_NE:
        return
    recipe = context.recipe
    built = {
        Component.UNET.value: True,
        UNET_REFINER: recipe.refiner is not None,
        CONTROLNET: bool(recipe.controlnets),
        T2I_ADAPTER: bool(recipe.t2i_adapters),
    }
    for part in (name for name, there in built.items() if there):
        if recipe.precision.get(part) == "float32":
            message = f"`{part}` in float32 for the Neural Engine of `{context.target.name}`"
            yield Finding(("precision", part), message, "write `float16`, or `compute_unit: CPU_AND_GPU`")
