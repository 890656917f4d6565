"""The parts of a recipe that say how something is built, each a mapping of its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sdbuild.compression import DOCUMENTATION
from sdbuild.recipe.part import Part
from sdbuild.recipe.vocabulary import (
    Bits,
    Gate,
    GroupSize,
    OneOrTwo,
    Precision,
    SheetBits,
)


class Latent(Part):
    """The size of the latent image; the picture is eight times as high and wide."""

    height: int = Field(ge=8, le=512, description="Rows of the latent image; the picture has 8 times as many.")
    width: int = Field(ge=8, le=512, description="Columns of the latent image; the picture has 8 times as many.")

    @property
    def picture(self) -> str:
        """The picture's size as names have it: `768x512`, height before width."""
        return f"{8 * self.height}x{8 * self.width}"


class Unet(Part):
    """How the UNet is built."""

    batch: OneOrTwo = Field(
        default=2, description="2 for guidance (conditional and unconditional together); 1 for models that need none."
    )
    chunks: OneOrTwo = Field(
        default=1,
        description="2 splits the UNet into two models of nearly equal size, each loaded alone; 1 keeps it whole.",
    )
    prediction: Literal["epsilon", "checkpoint"] = Field(
        default="epsilon",
        description="What the UNet gives: `epsilon`, the noise that the Swift package's schedulers take, computed from "
        "the velocity where the checkpoint predicts that; `checkpoint` leaves its prediction as it is.",
    )


class PerPart(Part):
    """A setting for each part of the pipeline; a part that is not named has the default.

    It reads like a mapping too: `get(part)`, `part in setting`.
    """

    def get(self, part: str, default: Any = None) -> Any:
        """The part's setting, or `default` where the recipe says nothing."""
        value = getattr(self, str(part), None)
        return default if value is None else value

    def __contains__(self, part: str) -> bool:
        return getattr(self, str(part), None) is not None

    def named(self) -> dict[str, Any]:
        """The parts that the recipe names and their settings."""
        return {part: value for part in type(self).model_fields if (value := getattr(self, part)) is not None}


_BITS = f"Bits for each weight of {{}}: {DOCUMENTATION}, or `none` to keep its precision."
_GROUPS = "Output channels that share a look-up table in {}."
_PRECISION = "Precision of the weights and the arithmetic of {}."
_GATES = "What verification asks of {}."


class Quantization(PerPart):
    """Bits for each weight, by part of the pipeline; a part that is not named keeps its precision."""

    text_encoder: Bits | None = Field(default=None, description=_BITS.format("the text encoder"))
    text_encoder_2: Bits | None = Field(default=None, description=_BITS.format("the second text encoder"))
    text_encoder_3: Bits | None = Field(default=None, description=_BITS.format("SD 3's third text encoder, T5"))
    unet: Bits | None = Field(default=None, description=_BITS.format("the UNet"))
    unet_refiner: Bits | None = Field(default=None, description=_BITS.format("the refiner's UNet"))
    transformer: Bits | None = Field(default=None, description=_BITS.format("SD 3's transformer"))
    vae_decoder: Bits | None = Field(default=None, description=_BITS.format("the VAE's decoder"))
    vae_encoder: Bits | None = Field(default=None, description=_BITS.format("the VAE's encoder"))
    safety_checker: Bits | None = Field(default=None, description=_BITS.format("the safety checker"))
    controlnet: Bits | None = Field(default=None, description=_BITS.format("every ControlNet"))
    t2i_adapter: Bits | None = Field(default=None, description=_BITS.format("every T2I-Adapter"))


class Groups(PerPart):
    """Output channels that share a look-up table, by part; a part that is not named has one table for each tensor."""

    text_encoder: GroupSize | None = Field(default=None, description=_GROUPS.format("the text encoder"))
    text_encoder_2: GroupSize | None = Field(default=None, description=_GROUPS.format("SDXL's second text encoder"))
    unet: GroupSize | None = Field(default=None, description=_GROUPS.format("the UNet"))
    unet_refiner: GroupSize | None = Field(default=None, description=_GROUPS.format("the refiner's UNet"))
    vae_decoder: GroupSize | None = Field(default=None, description=_GROUPS.format("the VAE's decoder"))
    vae_encoder: GroupSize | None = Field(default=None, description=_GROUPS.format("the VAE's encoder"))
    safety_checker: GroupSize | None = Field(default=None, description=_GROUPS.format("the safety checker"))
    controlnet: GroupSize | None = Field(default=None, description=_GROUPS.format("every ControlNet"))
    t2i_adapter: GroupSize | None = Field(default=None, description=_GROUPS.format("every T2I-Adapter"))


class Precisions(PerPart):
    """float16 or float32, by part of the pipeline.

    Where nothing is said, float16, but float32 for SDXL's VAE and for SD 3's transformer.
    """

    text_encoder: Precision | None = Field(default=None, description=_PRECISION.format("the text encoder"))
    text_encoder_2: Precision | None = Field(default=None, description=_PRECISION.format("the second text encoder"))
    text_encoder_3: Precision | None = Field(
        default=None, description=_PRECISION.format("SD 3's third text encoder, T5")
    )
    unet: Precision | None = Field(default=None, description=_PRECISION.format("the UNet"))
    unet_refiner: Precision | None = Field(default=None, description=_PRECISION.format("the refiner's UNet"))
    transformer: Precision | None = Field(default=None, description=_PRECISION.format("SD 3's transformer"))
    vae_decoder: Precision | None = Field(default=None, description=_PRECISION.format("the VAE's decoder"))
    vae_encoder: Precision | None = Field(default=None, description=_PRECISION.format("the VAE's encoder"))
    safety_checker: Precision | None = Field(default=None, description=_PRECISION.format("the safety checker"))
    controlnet: Precision | None = Field(default=None, description=_PRECISION.format("every ControlNet"))
    t2i_adapter: Precision | None = Field(default=None, description=_PRECISION.format("every T2I-Adapter"))


class Gates(Part):
    """The signal that a part must keep against the original model, in dB of PSNR; gates have defaults."""

    structure_db: Gate | None = Field(
        default=None, description="Lowest PSNR of the program executed in float32: shows faults of structure."
    )
    signal_db: Gate | None = Field(
        default=None, description="Lowest PSNR with every half-precision result rounded: what the device will see."
    )
    palettized_db: Gate | None = Field(default=None, description="Lowest PSNR of the palettized model.")


class Verification(PerPart):
    """Gates of verification, by part of the pipeline."""

    text_encoder: Gates | None = Field(default=None, description=_GATES.format("the text encoder"))
    text_encoder_2: Gates | None = Field(default=None, description=_GATES.format("the second text encoder"))
    text_encoder_3: Gates | None = Field(default=None, description=_GATES.format("SD 3's third text encoder, T5"))
    unet: Gates | None = Field(default=None, description=_GATES.format("the UNet"))
    unet_refiner: Gates | None = Field(default=None, description=_GATES.format("the refiner's UNet"))
    transformer: Gates | None = Field(default=None, description=_GATES.format("SD 3's transformer"))
    vae_decoder: Gates | None = Field(default=None, description=_GATES.format("the VAE's decoder"))
    vae_encoder: Gates | None = Field(default=None, description=_GATES.format("the VAE's encoder"))
    safety_checker: Gates | None = Field(default=None, description=_GATES.format("the safety checker"))
    controlnet: Gates | None = Field(default=None, description=_GATES.format("every ControlNet"))
    t2i_adapter: Gates | None = Field(default=None, description=_GATES.format("every T2I-Adapter"))


class ContactSheet(Part):
    """A picture that shows what compression costs: prompts down, precisions across."""

    prompts: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = Field(
        min_length=1, max_length=12, description="What to draw, a row each."
    )
    bits: tuple[SheetBits, ...] = Field(
        default=(8, 6, 4, 2),
        max_length=6,
        description="Bits for each weight of the UNet, a column each; PyTorch's own pictures and the UNet as it was "
        "converted stand before them.",
    )
    steps: int = Field(default=20, ge=1, le=200, description="Denoising steps of each picture.")
    guidance_scale: float = Field(
        default=7.5, ge=0, le=100, description="How strongly prompts steer; 1 or less means no guidance."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of each picture.")
