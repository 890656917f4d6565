"""The same seed, scheduler and steps give diffusers' own picture: at least 40 dB alike with float32 packages."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdbuild.pipeline import Pipeline, PipelineError
from sdbuild.pipeline.request import DIFFUSERS_SCHEDULERS
from tests.pipeline.originals import (
    HEIGHT,
    NEGATIVE,
    PROMPT,
    WIDTH,
    controlnets,
    edges,
    likeness,
    numpy_latents,
    original,
    photograph,
    t2i_adapters,
)
from tests.pipeline.studio import Studio

ALIKE_DB = 40.0
AS: dict[str, Any] = {"client": "diffusers"}
SIZE = {"height": HEIGHT, "width": WIDTH}


@pytest.mark.parametrize("scheduler", ["default", *DIFFUSERS_SCHEDULERS])
def test_every_scheduler(studio: Studio, scheduler: str) -> None:
    ours = Pipeline.from_bundle(studio.bundle("sd"))
    theirs = original("StableDiffusionPipeline", studio.checkpoint("tiny-sd"), scheduler)
    common: dict[str, Any] = {"negative_prompt": NEGATIVE, "guidance_scale": 5.0}
    pictures = ours(PROMPT, **AS, steps=5, seed=93, scheduler=scheduler, rng="torch", safety=False, **common)
    generator = torch.Generator().manual_seed(93)
    expected = theirs(PROMPT, num_inference_steps=5, generator=generator, **SIZE, **common).images
    assert likeness(pictures, expected) >= ALIKE_DB


def test_several_prompts_and_pictures_from_numpys_noise(studio: Studio) -> None:
    prompts = ["a red fox", "a green boat on a lake, oil painting"]
    ours = Pipeline.from_bundle(studio.bundle("sd"), reduce_memory=True)
    pictures = ours(prompts, **AS, steps=3, seed=7, image_count=2, safety=False)
    assert ours.bundle.loaded == ()
    theirs = original("StableDiffusionPipeline", studio.checkpoint("tiny-sd"))
    expected = []
    for prompt in prompts:
        expected += theirs(
            prompt, num_inference_steps=3, latents=numpy_latents(7, 2), num_images_per_prompt=2, **SIZE
        ).images
    assert likeness(pictures, expected) >= ALIKE_DB
    assert likeness(pictures[:1], pictures[1:2]) < 30
    assert likeness(pictures[:1], pictures[2:3]) < 60


@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
@pytest.mark.parametrize("scheduler", ["default", "euler", "dpm"])
def test_image_to_image(studio: Studio, scheduler: str, strength: float) -> None:
    ours = Pipeline.from_bundle(studio.bundle("sd"))
    common: dict[str, Any] = {"strength": strength, "guidance_scale": 5.0}
    pictures = ours(
        PROMPT, **AS, image=photograph(), steps=4, seed=5, scheduler=scheduler, rng="torch", safety=False, **common
    )
    theirs = original("StableDiffusionImg2ImgPipeline", studio.checkpoint("tiny-sd"), scheduler)
    generator = torch.Generator().manual_seed(5)
    expected = theirs(PROMPT, image=photograph(), num_inference_steps=4, generator=generator, **common).images
    assert likeness(pictures, expected) >= ALIKE_DB


@pytest.mark.parametrize("names", [["TinyControlnet"], ["Edges"], ["TinyControlnet", "Edges"]])
def test_controlnets(studio: Studio, names: list[str]) -> None:
    given = {"TinyControlnet": photograph(), "Edges": edges()}
    folders = {"TinyControlnet": studio.checkpoint("tiny-controlnet"), "Edges": studio.root / "checkpoints/edges"}
    ours = Pipeline.from_bundle(studio.bundle("sd-controlled"))
    images = {name: given[name] for name in names}
    pictures = ours(PROMPT, **AS, controlnet_images=images, controlnet_scale=0.8, steps=3, seed=1, rng="torch")
    loaded = controlnets(*(folders[name] for name in names))
    theirs = original("StableDiffusionControlNetPipeline", studio.checkpoint("tiny-sd"), controlnet=loaded)
    expected = theirs(
        PROMPT,
        image=list(images.values()),
        controlnet_conditioning_scale=[0.8] * len(names),
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(1),
        **SIZE,
    ).images
    assert likeness(pictures, expected) >= ALIKE_DB
    without = ours(PROMPT, **AS, steps=3, seed=1, rng="torch")
    assert likeness(pictures, without) < 40, "the ControlNets must be seen"


@pytest.mark.parametrize("recipe", ["sd-adapted", "sd-adapted-batch-1"])
@pytest.mark.parametrize("weights", [(0.8,), (1.0, 0.4)])
def test_t2i_adapters(studio: Studio, recipe: str, weights: tuple[float, ...]) -> None:
    """The second adapter is a light one, which takes a picture in grey."""
    names = ["tiny-t2i-adapter", "tiny-t2i-adapter-light"][: len(weights)]
    pictures = [edges(), photograph().convert("L")][: len(weights)]
    ours = Pipeline.from_bundle(studio.bundle(recipe), reduce_memory=True)
    images = dict(zip(["TinyT2IAdapter", "TinyT2IAdapterLight"], pictures, strict=False))
    common: dict[str, Any] = {"steps": 3, "seed": 1, "rng": "torch"}
    drawn = ours(PROMPT, **AS, adapter_images=images, adapter_conditioning_scale=weights, **common)
    loaded = t2i_adapters(*(studio.checkpoint(name) for name in names))
    several = len(weights) > 1
    theirs = original(
        "StableDiffusionAdapterPipeline",
        studio.checkpoint("tiny-sd"),
        adapter=loaded if several else loaded[0],
    )
    expected = theirs(
        PROMPT,
        image=pictures if several else pictures[0],
        adapter_conditioning_scale=list(weights) if several else weights[0],
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(1),
        **SIZE,
    ).images
    assert likeness(drawn, expected) >= ALIKE_DB
    assert likeness(drawn, ours(PROMPT, **AS, **common)) < 40, "the T2I-Adapters must be seen"


def test_a_t2i_adapter_for_sdxl(studio: Studio) -> None:
    ours = Pipeline.from_bundle(studio.bundle("sdxl-adapted"))
    common: dict[str, Any] = {"negative_prompt": NEGATIVE, "guidance_scale": 5.0, "adapter_conditioning_scale": 0.8}
    pictures = ours(
        PROMPT, **AS, adapter_images={"TinyT2IAdapterSdxl": edges()}, steps=3, seed=4, rng="torch", **common
    )
    (adapter,) = t2i_adapters(studio.checkpoint("tiny-t2i-adapter-sdxl"))
    kind, checkpoint = "StableDiffusionXLAdapterPipeline", studio.checkpoint("tiny-sdxl")
    theirs = original(kind, checkpoint, adapter=adapter, add_watermarker=False)
    expected = theirs(
        PROMPT, image=edges(), num_inference_steps=3, generator=torch.Generator().manual_seed(4), **SIZE, **common
    ).images
    assert likeness(pictures, expected) >= ALIKE_DB


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("recipe", ["sd", "sd-batch-1", "sd-chunked"])
def test_batch_and_chunks_with_and_without_guidance(studio: Studio, recipe: str, guidance_scale: float) -> None:
    ours = Pipeline.from_bundle(studio.bundle(recipe))
    pictures = ours(PROMPT, **AS, steps=3, seed=2, guidance_scale=guidance_scale, rng="torch", safety=False)
    theirs = original("StableDiffusionPipeline", studio.checkpoint("tiny-sd"))
    generator = torch.Generator().manual_seed(2)
    expected = theirs(PROMPT, num_inference_steps=3, guidance_scale=guidance_scale, generator=generator, **SIZE).images
    assert likeness(pictures, expected) >= ALIKE_DB


@pytest.mark.parametrize("scheduler", ["default", "dpm", "euler"])
def test_v_prediction(studio: Studio, scheduler: str) -> None:
    ours = Pipeline.from_bundle(studio.bundle("sd2"))
    pictures = ours(PROMPT, **AS, steps=4, seed=3, scheduler=scheduler, rng="torch")
    theirs = original("StableDiffusionPipeline", studio.root / "checkpoints/sd2", scheduler)
    assert theirs.scheduler.config.prediction_type == "v_prediction"
    generator = torch.Generator().manual_seed(3)
    expected = theirs(PROMPT, num_inference_steps=4, generator=generator, **SIZE).images
    assert likeness(pictures, expected) >= ALIKE_DB


@pytest.mark.parametrize("zeros", [False, True])
def test_sdxl(studio: Studio, zeros: bool) -> None:
    """Diffusers steers away from zeros where no negative prompt is given; an empty one is encoded."""
    ours = Pipeline.from_bundle(studio.bundle("sdxl"))
    pictures = ours(PROMPT, **AS, steps=4, seed=4, rng="torch", force_zeros_for_empty_prompt=zeros)
    theirs = original("StableDiffusionXLPipeline", studio.checkpoint("tiny-sdxl"), add_watermarker=False)
    expected = theirs(
        PROMPT,
        negative_prompt=None if zeros else "",
        num_inference_steps=4,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(4),
        **SIZE,
    ).images
    assert likeness(pictures, expected) >= ALIKE_DB


def test_sd3_with_t5(studio: Studio) -> None:
    ours = Pipeline.from_bundle(studio.bundle("sd3"), reduce_memory=True)
    common: dict[str, Any] = {"negative_prompt": NEGATIVE, "guidance_scale": 5.0}
    pictures = ours(PROMPT, **AS, steps=4, seed=4, rng="torch", **common)
    assert ours.bundle.loaded == ()
    theirs = original("StableDiffusion3Pipeline", studio.checkpoint("tiny-sd3"))
    generator = torch.Generator().manual_seed(4)
    expected = theirs(
        PROMPT, num_inference_steps=4, max_sequence_length=77, generator=generator, **SIZE, **common
    ).images
    assert likeness(pictures, expected) >= ALIKE_DB


def test_sd35_without_t5(studio: Studio) -> None:
    ours = Pipeline.from_bundle(studio.bundle("sd3-without-t5"))
    pictures = ours(PROMPT, **AS, negative_prompt=NEGATIVE, steps=4, seed=4, guidance_scale=5.0, rng="torch")
    missing = {"text_encoder_3": None, "tokenizer_3": None}
    theirs = original("StableDiffusion3Pipeline", studio.checkpoint("tiny-sd35"), **missing)
    expected = theirs(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=4,
        guidance_scale=5.0,
        max_sequence_length=77,
        generator=torch.Generator().manual_seed(4),
        **SIZE,
    ).images
    assert likeness(pictures, expected) >= ALIKE_DB
    with pytest.raises(PipelineError, match="drawn by flow matching"):
        ours(PROMPT, **AS, steps=1, scheduler="dpm")
