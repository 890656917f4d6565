"""A pipeline's `model_index.json`, and what of the pipeline's folders no bundle holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdbuild.checkpoints.account.entry import Entry, Kind, Use
from sdbuild.checkpoints.account.schedules import judge_schedule

INDEX = "model_index.json"
SCHEDULE = "scheduler/scheduler_config.json"

_PIPELINES = (
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline", "StableDiffusionControlNetPipeline", "StableDiffusionAdapterPipeline",
    "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
    "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLControlNetPipeline", "StableDiffusionXLAdapterPipeline",
    "StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline",
)  # fmt: skip
_OTHERS = {
    "StableDiffusionGLIGENPipeline": "GLIGEN, which is given boxes",
    "StableDiffusionGLIGENTextImagePipeline": "GLIGEN, which is given boxes and pictures",
    "StableUnCLIPPipeline": "unCLIP, which draws from a picture's embedding",
    "StableUnCLIPImg2ImgPipeline": "unCLIP, which draws from a picture's embedding",
    "AnimateDiffPipeline": "AnimateDiff, which draws videos",
    "StableVideoDiffusionPipeline": "which draws videos",
    "StableDiffusionUpscalePipeline": "an upscaler, which is given a small picture",
    "StableDiffusionLatentUpscalePipeline": "an upscaler, which is given a small picture",
    "StableDiffusionDepth2ImgPipeline": "which is given a depth map",
    "StableDiffusionImageVariationPipeline": "which draws from a picture and no text",
    "StableDiffusionXLInstructPix2PixPipeline": "SDXL with instructions, for which there is no interface",
}
_COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModelWithProjection", "CLIPTextModel"),
    "text_encoder_3": ("T5EncoderModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_3": ("T5Tokenizer", "T5TokenizerFast"),
    "safety_checker": ("StableDiffusionSafetyChecker",),
}
_UNUSED = {
    "feature_extractor": "prepares pictures for the safety checker, by figures that the app has",
    "image_encoder": "encodes pictures for IP-Adapters, which no bundle has",
}
_SETTINGS = {
    "_diffusers_version": "the version that wrote the file",
    "_name_or_path": "where the pipeline was loaded from",
    "requires_safety_checker": "asks a program to warn when the checker is left out; the recipe says the components",
    "add_watermarker": "puts an invisible mark into pictures, which no client does",
    "requires_aesthetics_score": "the UNet's width says it",
}
_OTHER_VAE_FACTOR = 0.13025


def judge_index(contents: Mapping[str, Any]) -> Iterator[Entry]:
    """What becomes of a pipeline's JSON files.

    Args:
        contents: path in the pipeline → what the file holds; None where that is no JSON.
    """
    index = contents.get(INDEX)
    for name, content in contents.items():
        if name.endswith(".json") and not isinstance(content, dict):
            yield Entry(name, Kind.FILE, name, Use.REFUSED, f"is no JSON object ({content}); download it again")
            return
    assert isinstance(index, dict)
    yield from _judge_pipeline(index)
    for name, content in contents.items():
        if name == SCHEDULE:
            yield Entry(name, Kind.FILE, name, Use.USED)
            yield from judge_schedule(name, content)
        elif name == INDEX or content is None:
            yield Entry(name, Kind.FILE, name, Use.USED)
        else:
            yield Entry(name, Kind.FILE, name, *_configuration(name.partition("/")[0], index))
    if SCHEDULE not in contents and "scheduler" in index:
        yield Entry(SCHEDULE, Kind.FILE, SCHEDULE, Use.WARNED, "is missing: PNDM with SD 1's betas is assumed")
    yield from _judge_factor(contents)


def _judge_pipeline(index: Mapping[str, Any]) -> Iterator[Entry]:
    for name, value in index.items():
        if name == "_class_name":
            yield Entry(INDEX, Kind.SETTING, name, *_pipeline(value))
        elif name == "force_zeros_for_empty_prompt":
            fits = isinstance(value, bool)
            reason = "" if fits else f"is {value!r}, and must be true or false"
            yield Entry(INDEX, Kind.SETTING, name, Use.USED if fits else Use.REFUSED, reason)
        elif name in _SETTINGS:
            yield Entry(INDEX, Kind.SETTING, name, Use.HARMLESS, _SETTINGS[name])
        elif isinstance(value, list):
            yield Entry(INDEX, Kind.SETTING, name, *_component(name, value))
        else:
            yield Entry(INDEX, Kind.SETTING, name, Use.WARNED, "is not known, and nothing reads it")


def _pipeline(class_name: Any) -> tuple[Use, str]:
    if class_name in _PIPELINES:
        return Use.USED, ""
    if isinstance(class_name, str) and class_name in _OTHERS:
        return Use.REFUSED, f"is {class_name!r}: {_OTHERS[class_name]}; use a pipeline of SD 1, SD 2, SDXL or SD 3"
    return Use.WARNED, f"is {class_name!r}, which is not known: what its code does besides is not done here"


def _component(name: str, value: list[Any]) -> tuple[Use, str]:
    if len(value) != 2:
        return Use.REFUSED, f"is {value!r}, and must name a library and a class"
    library, class_name = value
    if class_name is None:
        return Use.HARMLESS, "the pipeline has none"
    if name == "scheduler":
        return Use.USED, ""
    if name in _UNUSED:
        return Use.HARMLESS, _UNUSED[name]
    if name not in _COMPONENTS:
        return Use.WARNED, f"a {class_name} of {library}, for which no bundle has a place"
    if class_name not in _COMPONENTS[name]:
        return Use.WARNED, f"is a {class_name}; only {' or '.join(_COMPONENTS[name])} can be built"
    return Use.USED, ""


def _configuration(folder: str, index: Mapping[str, Any]) -> tuple[Use, str]:
    if folder in _UNUSED:
        return Use.HARMLESS, _UNUSED[folder]
    if folder in _COMPONENTS:
        return Use.USED, ""
    what = (
        "is of no component that a bundle has" if folder in index else "is of a folder that the pipeline does not name"
    )
    return Use.HARMLESS, what


def _judge_factor(contents: Mapping[str, Any]) -> Iterator[Entry]:
    """SDXL's factor where its VAE does not state one: diffusers' class would take SD 1's."""
    unet, vae = contents.get("unet/config.json") or {}, contents.get("vae/config.json") or {}
    if vae and unet.get("addition_embed_type") == "text_time" and vae.get("scaling_factor") is None:
        reason = f"is not stated: SDXL's {_OTHER_VAE_FACTOR} is taken, diffusers would take 0.18215"
        yield Entry("vae/config.json", Kind.SETTING, "scaling_factor", Use.WARNED, reason)
