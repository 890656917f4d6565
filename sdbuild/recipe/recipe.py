"""The recipe as a validated value: what to build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from sdbuild.compression import CHOICES, NONE, Compression
from sdbuild.families import Family, needs_float32
from sdbuild.recipe.part import Part
from sdbuild.recipe.references import Lora, ModelReference, Projection, Reference, TextualInversion
from sdbuild.recipe.scheduler import Scheduler
from sdbuild.recipe.settings import (
    ContactSheet,
    Groups,
    Latent,
    Precisions,
    Quantization,
    Unet,
    Verification,
)
from sdbuild.recipe.vocabulary import (
    AttentionImplementation,
    Component,
    ComputeUnit,
    DeploymentTarget,
    Name,
    Precision,
)


class Recipe(Part):
    """What to build: a model version, the components of its pipeline, how each is converted, and for which targets."""

    known_besides = ("extends",)

    name: Name = Field(description="The recipe's name; its file is called `NAME.yaml`.", examples=["sdxl-ios"])
    description: str = Field(default="", max_length=500, description="One sentence for tables and for the bundle.")
    model: ModelReference = Field(description="The checkpoint.")
    tokenizer: ModelReference | None = Field(
        default=None,
        description="Whose tokenizer to use instead of the checkpoint's own: a pipeline of the same family in "
        "diffusers layout, of which only `tokenizer/` and `tokenizer_2/` are read. A single file holds none, so it "
        "needs this.",
    )
    vae: ModelReference | None = Field(
        default=None,
        description="Another VAE than the checkpoint's own: a repository or directory with the VAE alone, a pipeline "
        "whose `vae/` is taken, or a file that holds it; also TAESD.",
        examples=[{"version": "madebyollin/sdxl-vae-fp16-fix"}],
    )
    denoiser: ModelReference | None = Field(
        default=None,
        description="Another UNet, or for SD 3 another transformer, than the checkpoint's own: a repository or "
        "directory with it, or a file that holds it (DMD2, Lightning, Hyper), which has no configuration: the "
        "checkpoint's is taken, and it must fit that.",
        examples=[{"version": "../models/dmd2_sdxl_4step_unet_fp16.safetensors"}],
    )
    loras: tuple[Lora, ...] = Field(
        default=(), max_length=16, description="LoRAs, each with its weight, fused before conversion."
    )
    textual_inversions: tuple[TextualInversion, ...] = Field(
        default=(), max_length=16, description="Textual inversions: new words, added to tokenizer and text encoders."
    )
    components: tuple[Component, ...] = Field(min_length=1, description="The models that the bundle holds.")
    attention_implementation: AttentionImplementation | None = Field(
        default=None,
        description="How attention is written in the denoiser and the ControlNets: `ORIGINAL` for the GPU, "
        "`SPLIT_EINSUM` for the Neural Engine, `SPLIT_EINSUM_V2` for it with chunked queries, "
        "`SDPA` as one fused operation from iOS 18 and macOS 15 on. Without it, what each target prefers.",
    )
    compute_unit: ComputeUnit | None = Field(
        default=None,
        description="The processors on which the app runs the UNet and the ControlNets. Without it, what each target "
        "prefers.",
    )
    reduce_memory: bool | None = Field(
        default=None,
        description="Whether the app loads each model only while it is needed, as `reduceMemory` of the Swift package "
        "does; the memory estimate counts on it and `bundle.json` says so. Without it, what each target prefers.",
    )
    latent: Latent = Field(description="The size of the latent image.")
    sizes: tuple[Latent, ...] = Field(
        default=(),
        max_length=16,
        description="Further sizes of the latent image. Each becomes a bundle of its own, called after target and "
        "picture (`iphone-15-pro-768x512`, height before width), which shares with the first whatever its size does "
        "not change.",
    )
    text_sequence_length: int = Field(
        default=77, ge=1, le=512, description="Tokens of the text that the denoiser attends to."
    )
    clip_skip: int | None = Field(
        default=None,
        ge=1,
        le=31,
        description="How many of the last layers of CLIP's text encoders the text states are taken before, as "
        "diffusers counts: 1 is clip skip 2 of other programs. Without it, what the checkpoint was trained with.",
    )
    scheduler: Scheduler = Field(
        default=Scheduler(), description="The schedule, where the checkpoint's files do not say it or say it wrong."
    )
    unet: Unet = Field(default=Unet(), description="The UNet's batch and chunks.")
    quantization: Quantization = Field(
        default=Quantization(), description="Bits for each weight, by part of the pipeline."
    )
    group_size: Groups = Field(
        default=Groups(),
        description="Output channels that share a look-up table, by part of the pipeline; from iOS 18 and macOS 15 on.",
    )
    precision: Precisions = Field(
        default=Precisions(), description="Floating-point precision, by part of the pipeline."
    )
    controlnets: tuple[ModelReference, ...] = Field(
        default=(), max_length=16, description="ControlNets in the bundle; with any, the UNet takes their residuals."
    )
    t2i_adapters: tuple[ModelReference, ...] = Field(
        default=(),
        max_length=16,
        description="T2I-Adapters in the bundle, for SD 1.x and SDXL; with any, there is a UNet that takes their "
        "features.",
    )
    refiner: ModelReference | None = Field(
        default=None,
        description="For SDXL: the refiner's checkpoint, whose UNet stands beside the base's and draws the last steps.",
    )
    multilingual_projection: Projection | None = Field(
        default=None,
        description="For SD 1 and 2: a linear layer from contextual embeddings of texts in many languages to text "
        "states, as a TorchScript file; it takes the text encoder's place, with 256 tokens.",
    )
    minimum_deployment_target: DeploymentTarget = Field(
        default=DeploymentTarget.IOS16, description="The oldest operating system that the models must run on."
    )
    targets: tuple[Name, ...] = Field(
        min_length=1, description="The targets to build for, by the names of their files."
    )
    overrides: dict[str, dict[str, Any]] = Field(
        default={}, description="Changes for a single target: target name → the fields that differ there."
    )
    contact_sheet: ContactSheet | None = Field(
        default=None, description="Pictures to draw with every build, for its first target; none by default."
    )
    allow: tuple[str, ...] = Field(
        default=(), description="Preflight rules that this recipe overrules, by name; the bundle then says so."
    )
    verify: Verification = Field(default=Verification(), description="The least signal that verification accepts.")

    def at_sizes(self) -> tuple[Recipe, ...]:
        """The recipe for each of its sizes, the first one first."""
        latents = dict.fromkeys((self.latent, *self.sizes))
        return tuple(self.model_copy(update={"latent": latent, "sizes": ()}) for latent in latents)

    def references(self) -> Iterator[tuple[tuple[str | int, ...], Reference]]:
        """Every model that the recipe names, with its place in the recipe."""
        for name in ("model", "tokenizer", "vae", "denoiser", "refiner"):
            if (reference := getattr(self, name)) is not None:
                yield (name,), reference
        for index, reference in enumerate(self.controlnets):
            yield ("controlnets", index), reference
        for index, reference in enumerate(self.t2i_adapters):
            yield ("t2i_adapters", index), reference
        for index, lora in enumerate(self.loras):
            yield ("loras", index), lora
        for index, inversion in enumerate(self.textual_inversions):
            yield ("textual_inversions", index), inversion

    @property
    def deployment_target(self) -> Literal["iOS16", "iOS17", "iOS18"]:
        """The minimum deployment target under its normalised name."""
        return self.minimum_deployment_target.normalised

    @property
    def generation(self) -> int:
        """The oldest system's major version on iOS's scale."""
        return int(self.deployment_target.removeprefix("iOS"))

    def compression(self, part: str) -> Compression | None:
        """How the weights of a component, ControlNets or T2I-Adapters are made smaller; None where they are not.

        Groups of channels that the method has not are left out: preflight tells.
        """
        chosen = CHOICES.get(self.quantization.get(part, NONE))
        groups = self.group_size.get(part)
        return (chosen.in_groups(groups) or chosen) if chosen is not None and groups is not None else chosen

    def precision_of(self, part: str, family: Family | None = None) -> Precision:
        """The precision of a component, the ControlNets or the T2I-Adapters.

        Args:
            part: a component's name, `controlnet` or `t2i_adapter`.
            family: the checkpoint's family; SDXL's VAE overflows in half precision and SD 3's transformer is known to
                work in float32 alone, so they are float32 unless stated.
        """
        stated: Precision | None = self.precision.get(part)
        if stated is not None:
            return stated
        return "float32" if needs_float32(part, family) else "float16"
