"""The parts of a recipe that say how something is built, each a mapping of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, create_model

from sdbuild.components import settings
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


def _per_part(name: str, kind: Any, text: str, documentation: str) -> type[PerPart]:
    """A setting with a field for each part that `sdbuild.components` registers.

    Args:
        name: the setting's.
        kind: the type of one part's setting.
        text: what a field says, with `{}` for the part.
        documentation: what the whole says.
    """
    fields: dict[str, Any] = {
        part: (kind | None, Field(default=None, description=text.format(description)))
        for part, description in settings().items()
    }
    made: type[PerPart] = create_model(name, __base__=PerPart, __module__=__name__, __doc__=documentation, **fields)
    return made


class Gates(Part):
    """The signal that a part must keep against the original model, in dB of PSNR; gates have defaults."""

    structure_db: Gate | None = Field(
        default=None, description="Lowest PSNR of the program executed in float32: shows faults of structure."
    )
    signal_db: Gate | None = Field(
        default=None, description="Lowest PSNR with every half-precision result rounded: what the device will see."
    )
    palettized_db: Gate | None = Field(default=None, description="Lowest PSNR of the palettized model.")


if TYPE_CHECKING:
    # Type checkers cannot see the fields, which nobody names: what a part's setting is, `get` says.
    Quantization: TypeAlias = PerPart
    Groups: TypeAlias = PerPart
    Precisions: TypeAlias = PerPart
    Verification: TypeAlias = PerPart
else:
    Quantization = _per_part(
        "Quantization",
        Bits,
        f"Bits for each weight of {{}}: {DOCUMENTATION}, or `none` to keep its precision.",
        "Bits for each weight, by part of the pipeline; a part that is not named keeps its precision.",
    )
    Groups = _per_part(
        "Groups",
        GroupSize,
        "Output channels that share a look-up table in {}.",
        "Output channels that share a look-up table, by part; a part that is not named has one table for each tensor.",
    )
    Precisions = _per_part(
        "Precisions",
        Precision,
        "Precision of the weights and the arithmetic of {}.",
        "float16 or float32, by part of the pipeline.\n\n"
        "Where nothing is said, float16, but float32 for SDXL's VAE and for SD 3's transformer.",
    )
    Verification = _per_part(
        "Verification", Gates, "What verification asks of {}.", "Gates of verification, by part of the pipeline."
    )


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
