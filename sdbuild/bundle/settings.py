"""What an app must set for the Swift package to draw as the checkpoint was trained: a section of `bundle.json`.

Nothing of it is read by the package itself: every bundle is drawn with the package's own defaults unless the app says
otherwise. The names are those of the package's initialisers and of its `PipelineConfiguration`, so that an app decodes
the section and assigns it field by field.

Source: apple/ml-stable-diffusion at e12202c, `StableDiffusionPipeline.Configuration.swift` (names and defaults),
`StableDiffusionPipeline+Resources.swift`, `StableDiffusionXL+Resources.swift`, `DPMSolverMultistepScheduler.swift`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from sdbuild.families import FAMILIES, Ability, Family
from sdbuild.families.family import Descriptor
from sdbuild.interface.swift.rows import PipelineKind

ComputeUnits = Literal["all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine"]
Pipeline = Literal["StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"]
SchedulerType = Literal["pndmScheduler", "dpmSolverMultistepScheduler", "discreteFlowScheduler"]
Spacing = Literal["linspace", "leading", "karras"]

_COMPUTE_UNITS: Mapping[str, ComputeUnits] = {
    "ALL": "all",
    "CPU_ONLY": "cpuOnly",
    "CPU_AND_GPU": "cpuAndGPU",
    "CPU_AND_NE": "cpuAndNeuralEngine",
}
_PIPELINES: Mapping[PipelineKind, Pipeline] = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
}
_PACKAGE_SIZE = 1024.0
_PACKAGE_SHIFT = 3.0


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Initializer(_Section):
    """Arguments of the pipeline's initialiser, besides the directory."""

    compute_units: ComputeUnits = Field(description="`computeUnits` of the `MLModelConfiguration`.")
    control_net: tuple[str, ...] = Field(
        description="The names that `controlNet` may list; with any of them listed, `ControlledUnet` draws. "
        "`StableDiffusionPipeline` alone takes this argument."
    )
    disable_safety: bool = Field(description="True for bundles without a safety checker.")
    reduce_memory: bool = Field(description="Whether each model is loaded only while it is needed.")
    use_multilingual_text_encoder: bool = Field(
        description="True for bundles with `MultilingualTextEncoderProjection`, which need it. "
        "`StableDiffusionPipeline` alone takes this argument."
    )


class Configuration(_Section):
    """Properties of `PipelineConfiguration`; all are there, those that a pipeline does not read with their defaults."""

    scheduler_type: SchedulerType = Field(description="The scheduler of the package that is the checkpoint's nearest.")
    scheduler_timestep_spacing: Spacing = Field(description="Read with `dpmSolverMultistepScheduler` alone.")
    scheduler_timestep_shift: float = Field(description="Of flow matching towards noise; read with SD 3.")
    guidance_scale: float = Field(
        description="How strongly the prompt steers; 0 where the UNet of SD 1 and 2 has batch 1 and is not guided."
    )
    rng_type: Literal["numpyRNG", "torchRNG", "nvidiaRNG"] = Field(description="Where noise comes from.")
    encoder_scale_factor: float = Field(description="Encoded pictures are multiplied by it.")
    decoder_scale_factor: float = Field(description="Latents are divided by it before decoding.")
    decoder_shift_factor: float = Field(description="Added to latents after that; read with SD 3 alone.")
    original_size: float = Field(description="Read with SDXL, for both sides: the picture's longer one.")
    crops_coords_top_left: float = Field(description="Read with SDXL, for both coordinates.")
    target_size: float = Field(description="Read with SDXL, for both sides: the picture's longer one.")
    aesthetic_score: float = Field(description="Read by SDXL's refiner, with the prompt.")
    negative_aesthetic_score: float = Field(description="Read by SDXL's refiner, with the negative prompt.")
    refiner_start: float = Field(description="The share of the steps before SDXL's refiner goes on.")
    disable_safety: bool = Field(description="True for bundles without a safety checker.")


class SwiftPackage(_Section):
    """What an app sets to draw a bundle with Apple's Swift package."""

    pipeline: Pipeline = Field(description="The type that loads `Resources`.")
    initializer: Initializer
    configuration: Configuration


def swift_package(document: Mapping[str, Any], *, reduce_memory: bool) -> SwiftPackage:
    """The settings that a bundle needs.

    Args:
        document: `bundle.json` as far as it is made: `family`, `models`, `controlnets`, `image`, `unet`, `vae`,
            `scheduler` and `compute_unit` are read.
        reduce_memory: whether the app loads each model only while it is needed.
    """
    family = FAMILIES[Family(document["family"] or Family.SD1)]
    pipeline = _PIPELINES[family.pipeline]
    models, scheduler, vae = document["models"], document["scheduler"], document["vae"]
    unchecked = "SafetyChecker" not in models
    has_sizes = pipeline == "StableDiffusionXLPipeline"
    size = float(max(document["image"].values())) if has_sizes else _PACKAGE_SIZE
    return SwiftPackage(
        pipeline=pipeline,
        initializer=Initializer(
            compute_units=_COMPUTE_UNITS[document["compute_unit"]],
            control_net=tuple(entry["name"] for entry in document["controlnets"]),
            disable_safety=unchecked,
            reduce_memory=reduce_memory,
            use_multilingual_text_encoder="MultilingualTextEncoderProjection" in models,
        ),
        configuration=Configuration(
            scheduler_type=scheduler_type(pipeline, scheduler),
            scheduler_timestep_spacing=spacing(scheduler),
            scheduler_timestep_shift=float(scheduler.get("shift", _PACKAGE_SHIFT)) if _is_flow(pipeline) else 3.0,
            guidance_scale=_guidance_scale(family, document["unet"]["batch"], scheduler),
            rng_type="numpyRNG",
            encoder_scale_factor=vae["scaling_factor"],
            decoder_scale_factor=vae["scaling_factor"],
            decoder_shift_factor=vae["shift_factor"],
            original_size=size,
            crops_coords_top_left=0.0,
            target_size=size,
            aesthetic_score=6.0,
            negative_aesthetic_score=2.5,
            refiner_start=0.8,
            disable_safety=unchecked,
        ),
    )


def scheduler_type(pipeline: Pipeline, scheduler: Mapping[str, Any]) -> SchedulerType:
    """PNDM where the checkpoint names it, the flow's for SD 3, and else DPM-Solver++, which stands for all others."""
    if _is_flow(pipeline):
        return "discreteFlowScheduler"
    return "pndmScheduler" if scheduler.get("_class_name") == "PNDMScheduler" else "dpmSolverMultistepScheduler"


def spacing(scheduler: Mapping[str, Any]) -> Spacing:
    """The package's spacing of time steps for a checkpoint's `scheduler_config.json`.

    The package's `linspace` goes from step 999 down in even steps and never reaches 0: what diffusers calls `trailing`,
    up to one step.
    """
    if scheduler.get("use_karras_sigmas"):
        return "karras"
    return "leading" if scheduler.get("timestep_spacing") == "leading" else "linspace"


def _is_flow(pipeline: Pipeline) -> bool:
    return pipeline == "StableDiffusion3Pipeline"


def _guidance_scale(family: Descriptor, batch: int, scheduler: Mapping[str, Any]) -> float:
    if family.can(Ability.UNGUIDED) and batch == 1:
        return 0.0
    turbo = scheduler.get("_class_name") == "EulerAncestralDiscreteScheduler"
    if turbo and scheduler.get("timestep_spacing") == "trailing":
        # SDXL Turbo (Sauer et al. 2023) is drawn without guidance; with 1, the package takes the prompt's row alone.
        return 1.0
    return family.guidance_scale
