"""Every family and variant: built, verified against diffusers, linted and, where the Swift package can, drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sdbuild.bundle.document import read_document
from sdbuild.bundle.linter import lint, lint_bundle
from sdbuild.pipeline import Pipeline, PipelineError
from sdbuild.recipe.diagnostics import RecipeError
from tests.pipeline.originals import PROMPT, controlnets, edges, likeness, original
from tests.pipeline.studio import Studio

SIZE = {"height": 64, "width": 64}
EXPECTED: dict[str, dict[str, Any]] = {
    "inpaint": {"family": "sd1", "task": "inpainting", "extensions": ["inpainting"], "guidance_embedding": None},
    "pix2pix": {"family": "sd1", "task": "instruct-pix2pix", "extensions": ["instruct-pix2pix"]},
    "lcm": {"family": "sd1", "task": "text-to-image", "extensions": ["guidance-embedding"], "guidance_embedding": 32},
    "small-sd": {"family": "sd1", "task": "text-to-image", "extensions": []},
    "ssd": {"family": "sdxl", "extensions": []},
    "sdxl-turbo": {"family": "sdxl", "extensions": []},
    "sdxl-inpaint": {"family": "sdxl", "task": "inpainting", "extensions": ["inpainting"]},
    "refiner": {"family": "sdxl-refiner", "extensions": []},
    "sdxl-refined": {"family": "sdxl", "refiner": {"version": "builtin:tiny-sdxl-refiner"}},
}


def figures_of(bundle: Path) -> dict[str, Any]:
    """Verified artifact → output → figures, as noted beside a bundle."""
    host = json.loads(bundle.with_name(f"{bundle.name}.build-host.json").read_bytes())
    prefix = "verify:"
    return {
        name.removeprefix(prefix): action["notes"]["outputs"]
        for name, action in host["actions"].items()
        if name.startswith(prefix)
    }


SWIFT = [name for name, facts in EXPECTED.items() if not facts.get("extensions")]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_bundle_is_verified_and_linted(families: Studio, name: str) -> None:
    bundle = families.bundle(name, "on")
    assert lint_bundle(bundle) == []
    document = read_document(bundle)
    for key, value in EXPECTED[name].items():
        assert document[key] == value or value.items() <= document[key].items()
    assert document["verification"]["convert-unet"]["outputs"] == ["noise_pred"]
    figures = figures_of(bundle)["convert-unet"]["noise_pred"]
    assert figures["structure_db"] > 100


def test_fused_attention_grouped_tables_linear_weights_and_a_shorter_text(families: Studio) -> None:
    bundle = families.bundle("modern", "on")
    assert lint_bundle(bundle) == []
    document = read_document(bundle)
    assert (document["attention_implementation"], document["text_sequence_length"]) == ("SDPA", 40)
    facts = {
        name: (model["bits"], model["compression"], model["group_size"]) for name, model in document["models"].items()
    }
    assert facts == {
        "TextEncoder": (8, "linear", None),
        "Unet": (4, "palette", 32),
        "VAEDecoder": (None, None, None),
    }
    figures = figures_of(bundle)
    assert figures["quantize-text_encoder"]["last_hidden_state"]["palettized_db"] > 35
    whole, grouped = (figures[f"{stage}-unet"]["noise_pred"] for stage in ("convert", "quantize"))
    assert whole["signal_db"] > grouped["palettized_db"] > 16
    (picture,) = Pipeline.from_bundle(bundle, precision="fp16")(PROMPT, steps=2)
    assert picture.size == (64, 64)


@pytest.mark.parametrize("name", SWIFT)
def test_the_swift_package_alone_can_use_it(families: Studio, name: str) -> None:
    assert lint(families.bundle(name, "on") / "Resources") == []


def test_without_the_document_other_inputs_are_violations(families: Studio) -> None:
    found = {violation.rule for violation in lint(families.bundle("inpaint", "on") / "Resources")}
    assert found == {"shape"}
    found = {violation.rule for violation in lint(families.bundle("lcm", "on") / "Resources")}
    assert found == {"input-name"}


def test_a_document_that_names_too_much_is_a_violation(families: Studio) -> None:
    bundle = families.bundle("small-sd", "on")
    document = json.loads((bundle / "bundle.json").read_text()) | {"extensions": ["guidance-embedding", "inpainting"]}
    assert {violation.rule for violation in lint(bundle / "Resources", document)} == {"input-name", "shape"}


@pytest.mark.parametrize("name", ["inpaint", "pix2pix", "sdxl-inpaint"])
def test_what_cannot_be_drawn_is_said(families: Studio, name: str) -> None:
    with pytest.raises(PipelineError, match=r"takes [89] channels, as (inpainting|instruct-pix2pix) models do"):
        Pipeline.from_bundle(families.bundle(name, "on"))(PROMPT, steps=1)


@pytest.mark.parametrize("name", ["lcm", "small-sd", "ssd", "sdxl-turbo", "refiner"])
def test_the_others_draw(families: Studio, name: str) -> None:
    guidance = {"sdxl-turbo": 0.0}.get(name, 5.0)
    options: dict[str, Any] = {"client": "diffusers", "steps": 2, "guidance_scale": guidance, "rng": "torch", "seed": 7}
    (picture,) = Pipeline.from_bundle(families.bundle(name, "on"))(PROMPT, **options)
    if name == "refiner":
        return
    kind, checkpoint = DIFFUSERS[name]
    theirs = original(kind, families.checkpoint(checkpoint))
    drawn: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": guidance, **SIZE}
    expected = theirs(PROMPT, generator=torch.Generator().manual_seed(7), **drawn).images
    assert likeness([picture], expected) >= 40


DIFFUSERS = {
    "lcm": ("LatentConsistencyModelPipeline", "tiny-lcm"),
    "small-sd": ("StableDiffusionPipeline", "tiny-small-sd"),
    "ssd": ("StableDiffusionXLPipeline", "tiny-ssd"),
    "sdxl-turbo": ("StableDiffusionXLPipeline", "tiny-sdxl-turbo"),
}


def test_base_and_refiner_draw_as_in_diffusers(families: Studio) -> None:
    ours = Pipeline.from_bundle(families.bundle("sdxl-refined", "on"), reduce_memory=True)
    options: dict[str, Any] = {
        "client": "diffusers",
        "steps": 5,
        "guidance_scale": 5.0,
        "negative_prompt": "blurry",
    }
    (picture,) = ours(PROMPT, refiner_start=0.4, rng="torch", seed=3, **options)
    assert picture.info["refiner_start"] == "0.4"
    common = {"num_inference_steps": 5, "guidance_scale": 5.0, "negative_prompt": "blurry"}
    base = original("StableDiffusionXLPipeline", families.checkpoint("tiny-sdxl"), add_watermarker=False)
    latents = base(
        PROMPT,
        denoising_end=0.4,
        output_type="latent",
        generator=torch.Generator().manual_seed(3),
        **common,
        **SIZE,
    ).images
    refiner = original(
        "StableDiffusionXLImg2ImgPipeline",
        families.checkpoint("tiny-sdxl-refiner"),
        text_encoder_2=base.text_encoder_2,
        vae=base.vae,
        add_watermarker=False,
    )
    expected = refiner(PROMPT, image=latents, denoising_start=0.4, **common).images
    assert likeness([picture], expected) >= 40
    (alone,) = ours(PROMPT, refiner_start=1, rng="torch", seed=3, **options)
    assert likeness([picture], [alone]) < 45


def test_a_multilingual_bundle(families: Studio) -> None:
    (families.root / "checkpoints").mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.jit.script(torch.nn.Linear(512, 64)).save(str(families.root / "checkpoints/projection.pt"))
    bundle = families.bundle("multilingual", "on")
    assert lint_bundle(bundle) == lint(bundle / "Resources") == []
    document = read_document(bundle)
    assert sorted(document["models"]) == ["MultilingualTextEncoderProjection", "Unet", "VAEDecoder"]
    figures = figures_of(bundle)["convert-multilingual_projection"]["encoder_hidden_states"]
    assert figures["structure_db"] > 100
    assert figures["signal_db"] > 60
    with pytest.raises(PipelineError, match="NLContextualEmbedding"):
        Pipeline.from_bundle(bundle)(PROMPT, steps=1)


def test_a_controlnet_for_sdxl_draws_as_in_diffusers(families: Studio) -> None:
    bundle = families.bundle("sdxl-controlled", "on")
    assert lint_bundle(bundle) == []
    document = read_document(bundle)
    assert document["extensions"] == ["sdxl-controlnet"]
    assert {"ControlledUnet", "controlnet/TinyControlnetSdxl"} <= document["models"].keys()
    assert {violation.rule for violation in lint(bundle / "Resources")} == {"unknown-file"}
    picture = edges().resize((64, 64))
    (ours,) = Pipeline.from_bundle(bundle)(
        PROMPT,
        steps=2,
        rng="torch",
        seed=5,
        guidance_scale=4.0,
        controlnet_images={"TinyControlnetSdxl": picture},
    )
    (controlnet,) = controlnets(families.checkpoint("tiny-controlnet-sdxl"))
    theirs = original(
        "StableDiffusionXLControlNetPipeline",
        families.checkpoint("tiny-sdxl-turbo"),
        controlnet=controlnet,
        add_watermarker=False,
    )
    expected = theirs(
        PROMPT,
        image=picture,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(5),
        **SIZE,
    ).images
    assert likeness([ours], expected) >= 40


@pytest.mark.parametrize(
    ("name", "fetched", "rule"),
    [
        ("not-told", "inpaint", "not-for-the-swift-package"),
        ("wrong-encoders", "refiner", "component-missing-from-checkpoint"),
        ("refiner-of-nothing", "small-sd", "refiner-without-base"),
    ],
)
def test_a_recipe_that_contradicts_the_checkpoint_is_refused(
    families: Studio, name: str, fetched: str, rule: str
) -> None:
    families.make(fetched, "source:index")
    with pytest.raises(RecipeError, match=rule):
        families.bundle(name)


def test_another_checkpoint_as_refiner_is_refused_before_any_work(families: Studio) -> None:
    with pytest.raises(Exception, match="this is no refiner"):
        families.make("no-refiner", "convert:unet_refiner")


def test_t2i_adapters_and_their_unet_are_verified_and_linted(families: Studio) -> None:
    bundle = families.bundle("adapted", "on")
    assert lint_bundle(bundle) == []
    document = read_document(bundle)
    assert document["extensions"] == ["t2i-adapter"]
    assert [entry["name"] for entry in document["t2i_adapters"]] == ["TinyT2IAdapter", "TinyT2IAdapterLight"]
    assert {"UnetChunk1", "AdaptedUnetChunk1", "t2i_adapter/TinyT2IAdapterLight"} <= document["models"].keys()
    verified = figures_of(bundle)
    parts = ("t2i_adapter-TinyT2IAdapter", "t2i_adapter-TinyT2IAdapterLight", "adapted_unet")
    assert {f"{stage}-{part}" for stage in ("convert", "quantize") for part in parts} <= verified.keys()
    assert verified["chunk-adapted_unet"]["noise_pred"]["palettized_db"] > 28
    assert all(figure["structure_db"] > 100 for figure in verified[f"convert-{parts[1]}"].values())
