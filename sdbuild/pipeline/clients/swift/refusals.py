"""Where the Swift package stops, told before any model is loaded.

The rules are in docs/reference/client.md, each with the Swift file that shows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sdbuild.bundle.settings import Configuration
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.clients.swift.safety import SAFETY_PICTURE
from sdbuild.pipeline.clients.swift.schedulers import first_step, make
from sdbuild.pipeline.clients.swift.settings import pipeline_of
from sdbuild.pipeline.errors import PipelineError, RequestError
from sdbuild.pipeline.request import DEFAULT_SCHEDULER, Request

_SD3_WIDTHS = {"encoder_hidden_states": (4096, 1, 154), "text_embeds": (2048,)}
_ELSEWHERE = "client=diffusers draws it"


def beyond(bundle: OpenBundle, request: Request) -> str | None:
    """Why no app can ask the Swift package for such a picture; None where it can.

    Raises:
        PipelineError: the bundle lacks the UNet that the request needs.
    """
    bundle.unet_files(request.unet)
    if request.adapter_images:
        return "the Swift package knows no T2I-Adapters"
    if request.controlnet_images and pipeline_of(bundle) != "StableDiffusionPipeline":
        return "the Swift package loads ControlNets for Stable Diffusion 1 and 2 alone"
    if "timestep_cond" in bundle.unet_inputs(request.unet):
        return "the Swift package feeds no timestep_cond, which this UNet takes"
    return None


def refuse(bundle: OpenBundle, request: Request, configuration: Configuration) -> None:
    """Refuse what the package does not do.

    Raises:
        RequestError: it never does.
        PipelineError: it does not with this bundle.
    """
    if reason := beyond(bundle, request):
        raise PipelineError(f"{reason}; {_ELSEWHERE}")
    for name, value, usual in (
        ("controlnet_scale", request.controlnet_scale, 1.0),
        ("force_zeros_for_empty_prompt", bool(request.force_zeros_for_empty_prompt), False),
    ):
        if value != usual:
            raise RequestError(f"{name}={value}: the Swift package has no such thing; {_ELSEWHERE}")
    _refuse_scheduler(bundle, request, configuration)
    for reason in _mismatches(bundle, request, configuration.guidance_scale):
        raise PipelineError(reason)


def starts_from_picture(request: Request) -> bool:
    """Whether the package draws a picture anew: with strength 1 it ignores it."""
    return request.image is not None and request.strength < 1


def _refuse_scheduler(bundle: OpenBundle, request: Request, configuration: Configuration) -> None:
    if pipeline_of(bundle) == "StableDiffusion3Pipeline" and request.scheduler not in (DEFAULT_SCHEDULER, "flow"):
        raise PipelineError(
            f"scheduler={request.scheduler}: the Swift package draws Stable Diffusion 3 by flow matching; leave it out"
        )
    kind = configuration.scheduler_type
    scheduler = make(
        kind,
        request.steps,
        spacing=configuration.scheduler_timestep_spacing,
        shift=configuration.scheduler_timestep_shift,
    )
    if not starts_from_picture(request):
        return
    if kind == "discreteFlowScheduler":
        raise PipelineError(
            "image=: the Swift package cannot start flow matching from a picture, it stops; leave image= out"
        )
    if first_step(request.steps, request.strength) >= len(scheduler.time_steps):
        raise RequestError(f"strength={request.strength} leaves none of {request.steps} steps; raise either")


def _mismatches(bundle: OpenBundle, request: Request, guidance_scale: float) -> Iterator[str]:
    """What Core ML or Swift would stop at once the models run."""
    pipeline = pipeline_of(bundle)
    yield from _pipelines_needs(bundle)
    batch = bundle.unet_inputs(request.unet)["sample"].shape[0]
    if pipeline != "StableDiffusionPipeline" or request.controlnet_images:
        if batch != 2:
            what = "ControlNets" if request.controlnet_images else "this family"
            yield f"the UNet has batch {batch}; for {what} the Swift package always sends 2: set unet: {{batch: 2}}"
        if request.controlnet_images and guidance_scale < 1:
            yield (
                f"guidance_scale={guidance_scale:g}: below 1 the Swift package sends one row, and ControlNets take "
                "two; raise it to 1"
            )
    elif batch == 2 and guidance_scale < 1:
        yield (
            f"guidance_scale={guidance_scale:g}: below 1 the Swift package sends one row, and this UNet takes two; "
            "raise it to 1, which is the same picture, or build with unet: {batch: 1}"
        )
    elif batch == 1 and guidance_scale >= 1 and request.image_count > 1:
        yield (
            f"image_count={request.image_count}: with a UNet of batch 1 and guidance the Swift package draws one "
            "picture and stops at the second; draw one after another, or build with unet: {batch: 2}"
        )
    yield from _pictures(bundle, request)
    checker = _inputs(bundle, "SafetyChecker") if pipeline == "StableDiffusionPipeline" and request.safety else {}
    if checker and checker["images"] != SAFETY_PICTURE:
        yield (
            f"the safety checker takes images {list(checker['images'])}, and the Swift package feeds "
            f"{list(SAFETY_PICTURE)}; build the bundle again, or draw with safety=off"
        )


def _pipelines_needs(bundle: OpenBundle) -> Iterator[str]:
    """Models and widths that the package's pipelines take for granted."""
    pipeline = pipeline_of(bundle)
    if pipeline == "StableDiffusion3Pipeline":
        needed = ["TextEncoder", "TextEncoder2"]
        inputs = bundle.unet_inputs()
        for name, shape in _SD3_WIDTHS.items():
            if inputs[name].shape[1 : 1 + len(shape)] != shape:
                yield f"the transformer takes {name} {inputs[name].shape}; the Swift package gives {(2, *shape)} alone"
    elif pipeline == "StableDiffusionXLPipeline":
        is_refiner = bundle.unet_inputs()["time_ids"].shape[-1] == 5
        needed = ["TextEncoder2"] if is_refiner else ["TextEncoder", "TextEncoder2"]
    else:
        needed = ["TextEncoder"]
    for name in needed:
        if not bundle.has(name):
            yield f"{bundle.path} has no {name}, without which the Swift package stops; add it to the components"


def _pictures(bundle: OpenBundle, request: Request) -> Iterator[str]:
    height, width = bundle.image_size
    given = [("image=", request.image)] if starts_from_picture(request) else []
    given += [(f"{name}'s picture", picture) for name, picture in request.controlnet_images.items()]
    for what, picture in given:
        assert picture is not None
        if picture.size != (width, height):
            yield (
                f"{what} is {picture.width}×{picture.height}, the bundle's pictures are {width}×{height}: the Swift "
                "package refuses another size; resize the picture first"
            )


def _inputs(bundle: OpenBundle, model: str) -> dict[str, tuple[int, ...]]:
    entries = bundle.document["models"].get(model, {"inputs": ()})["inputs"]
    return {entry["name"]: tuple(int(size) for size in entry["shape"]) for entry in entries}


def refiners_first_step(step_count: int, refiner_start: float) -> int:
    """The step at which SDXL's refiner takes over, counted in single precision."""
    return int(np.float32(step_count) * np.float32(refiner_start))
