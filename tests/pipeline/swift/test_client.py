"""The Swift package as a client: its pictures and latents, and where it stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdbuild.pipeline import Pipeline, PipelineError, RequestError
from sdbuild.pipeline.clients.swift.client import SwiftClient
from sdbuild.pipeline.request import Request
from tests.pipeline.originals import HEIGHT, NEGATIVE, WIDTH, likeness, photograph
from tests.pipeline.studio import Studio
from tests.pipeline.swift.phone import Phone

PROMPT = "a large red heart, a small green square; it's 3d"
KARRAS = {"schedulerTimestepSpacing": "karras"}


def decibels(values: Any, reference: Any) -> float:
    return float(10 * np.log10(np.mean(reference**2) / np.mean((values - reference) ** 2)))


def compare(bundle: Path, phone: Phone, options: dict[str, Any], number: int = 0) -> Image.Image:
    """Draw by both; latents after every step and the picture must be the same."""
    latents: dict[int, list[Any]] = {}
    pictures = Pipeline.from_bundle(bundle)(
        PROMPT,
        negative_prompt=NEGATIVE,
        seed=5,
        guidance_scale=4.0,
        safety=False,
        image_count=number + 1,
        on_latents=lambda index, values: latents.setdefault(index, []).append(np.array(values)),
        **options,
    )
    assert pictures[number].info["client"] == "swift"
    run, expected = phone.draw(PROMPT, options["steps"], 5, 4.0, NEGATIVE, number)
    assert len(latents[number]) == len(run.samples)
    worst = min(decibels(*pair) for pair in zip(latents[number], run.samples, strict=True))
    assert worst >= 90, worst
    assert likeness([pictures[number]], [expected]) >= 55
    return pictures[number]


@pytest.mark.parametrize(
    ("options", "scheduler"),
    [
        ({"steps": 5, "scheduler": "pndm"}, "pndm"),
        ({"steps": 4, "scheduler": "dpm"}, "linspace"),
        ({"steps": 3, "scheduler": "dpm", "configuration": {"schedulerTimestepSpacing": "leading"}}, "leading"),
        ({"steps": 6, "scheduler": "dpm", "configuration": KARRAS}, "karras"),
    ],
)
def test_every_scheduler_draws_what_a_phone_draws(studio: Studio, options: dict[str, Any], scheduler: str) -> None:
    bundle = studio.bundle("sd")
    compare(bundle, Phone(bundle, scheduler), options, number=1 if scheduler == "pndm" else 0)


def test_a_unet_of_batch_1_in_two_chunks_draws_the_same(studio: Studio) -> None:
    options: dict[str, Any] = {"steps": 3, "scheduler": "dpm", "guidance_scale": 4.0, "safety": False}
    whole, halves = (Pipeline.from_bundle(studio.bundle(name))(PROMPT, **options) for name in ("sd", "sd-batch-1"))
    assert likeness(whole, halves) >= 55


def test_sdxl_is_told_the_configurations_size_and_steers_away_from_the_empty_prompt(studio: Studio) -> None:
    bundle = studio.bundle("sdxl")
    spacing = "leading"
    longest = float(max(HEIGHT, WIDTH))
    as_told = compare(bundle, Phone(bundle, spacing, longest, 0.13025), {"steps": 4})
    assert (as_told.info["scheduler"], as_told.info["timestep_spacing"]) == ("dpm", spacing)
    unset = {"originalSize": 1024.0, "targetSize": 1024.0}
    untold = compare(bundle, Phone(bundle, spacing, 1024.0, 0.13025), {"steps": 4, "configuration": unset})
    assert untold.info["configuration"] == "originalSize:1024.0, targetSize:1024.0"
    assert likeness([as_told], [untold]) < 45


def test_sd3_is_told_shifted_times(studio: Studio) -> None:
    bundle = studio.bundle("sd3")
    factors = json.loads((bundle / "bundle.json").read_bytes())["vae"]
    phone = Phone(bundle, "flow", scale=factors["scaling_factor"], shift=factors["shift_factor"])
    drawn = compare(bundle, phone, {"steps": 3})
    assert drawn.info["scheduler"] == "flow"


@pytest.mark.parametrize("rng", ["numpy", "torch", "nvidia"])
def test_image_to_image_adds_noise_to_a_sample_that_is_drawn_after_it(studio: Studio, rng: str) -> None:
    """With no guidance to speak of, what is drawn follows from the first latents; these are worked out here."""
    from sdbuild.pipeline.clients.swift.client import _SOURCES
    from tests.pipeline.swift import formulas

    bundle = studio.bundle("sd")
    latents: list[Any] = []
    options: dict[str, Any] = {"steps": 4, "scheduler": "dpm", "strength": 0.5, "guidance_scale": 1.0, "rng": rng}
    (picture,) = Pipeline.from_bundle(bundle)(
        PROMPT,
        image=photograph(),
        seed=8,
        safety=False,
        on_latents=lambda _, values: latents.append(np.array(values)),
        **options,
    )
    assert picture.info["strength"] == "0.5"
    assert len(latents) == 2, "half of the steps"
    phone, source = Phone(bundle), _SOURCES[rng](8)
    noise = source.normal((1, 4, HEIGHT // 8, WIDTH // 8)).astype(np.float64)
    pixels = np.asarray(photograph(), np.float64).transpose(2, 0, 1)[None] / 255 * 2 - 1
    (moments,) = phone.run("VAEEncoder", x=pixels).values()
    spread = np.exp(np.clip(moments[:, 4:], -30, 20) / 2)
    original = source.sample(moments[:, :4], spread) * 0.18215
    first, alpha = 500, formulas.ALPHA_BAR
    start = np.sqrt(alpha[first]) * original + np.sqrt(1 - alpha[first]) * noise
    predicted = phone.noise_model(PROMPT, "", 1.0)(start, first)
    cleaned = (start - np.sqrt(1 - alpha[first]) * predicted) / np.sqrt(alpha[first])
    following = np.sqrt(alpha[250]) * cleaned + np.sqrt(1 - alpha[250]) * predicted
    assert decibels(latents[0], following) >= 90


def test_strength_1_ignores_the_picture_and_says_so(studio: Studio) -> None:
    pipeline = Pipeline.from_bundle(studio.bundle("sd"))
    options: dict[str, Any] = {"steps": 2, "scheduler": "dpm", "safety": False}
    said: list[str] = []
    ignored = pipeline(PROMPT, image=Image.new("RGB", (10, 10)), strength=1.0, on_warning=said.append, **options)
    assert "strength=1: the Swift package ignores the picture and draws from the prompt alone" in said
    np.testing.assert_array_equal(np.asarray(ignored[0]), np.asarray(pipeline(PROMPT, **options)[0]))
    assert "strength" not in ignored[0].info


def test_the_safety_checker_is_fed_what_swift_feeds(studio: Studio) -> None:
    """All of the picture, as ImageNet's are normalised, and an empty picture of 512 rows and columns."""
    fed: dict[str, Any] = {}

    class Checker:
        inputs = Pipeline.from_bundle(studio.bundle("sd")).bundle.model("SafetyChecker").inputs

        def predict(self, inputs: Any) -> Any:
            fed.update(inputs)
            return {"has_nsfw_concepts": np.array([1.0])}

    client = SwiftClient(Pipeline.from_bundle(studio.bundle("sd")).bundle, Request())
    picture = Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 51))
    picture.paste((0, 255, 51), (0, 0, WIDTH, HEIGHT // 2))
    assert client.is_flagged(Checker(), picture)
    assert fed["images"].shape == (1, 512, 512, 3)
    size = fed["clip_input"].shape[-1]
    np.testing.assert_allclose(
        fed["clip_input"][0, :, [0, -1], 0],
        [[-0.485 / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225], [0.515 / 0.229, -0.456 / 0.224, -0.206 / 0.225]],
        atol=1e-5,
    )
    upper = fed["clip_input"][0, 0, : size // 2 - 8]
    assert np.ptp(upper) < 1e-5, "the whole picture is shown, not its middle"


Change = Callable[..., Pipeline]


@pytest.fixture
def changed(studio: Studio, tmp_path: Path) -> Change:
    """A bundle with its document changed."""

    def change(recipe: str, edit: Callable[[dict[str, Any]], None] = lambda document: None) -> Pipeline:
        shutil.copytree(studio.bundle(recipe), tmp_path / "bundle")
        path = tmp_path / "bundle/bundle.json"
        document = json.loads(path.read_bytes())
        edit(document)
        path.chmod(0o644)
        path.write_text(json.dumps(document))
        return Pipeline.from_bundle(tmp_path / "bundle")

    return change


SMALL = Image.new("RGB", (32, 32))


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("sd", {"scheduler": "euler"}, "the Swift package has pndm, dpm, flow; client=diffusers draws it"),
        ("sd", {"scheduler": "pndm", "steps": 1}, "PNDM needs two steps"),
        ("sd", {"scheduler": "dpm", "steps": 1, "configuration": KARRAS}, "Karras spacing needs two"),
        ("sd", {"configuration": {"schedulerTimestepSpacing": "trailing"}}, "schedulerTimestepSpacing:trailing"),
        ("sd", {"guidance_scale": 0.5}, "this UNet takes two; raise it to 1"),
        ("sd", {"image": SMALL}, r"image= is 32×32, the bundle's pictures are 64×128"),
        ("sd", {"image": photograph(), "scheduler": "dpm", "strength": 0.01}, "leaves none of 25 steps"),
        ("sd", {"image": photograph(), "scheduler": "flow"}, "cannot start flow matching from a picture"),
        ("sd", {"force_zeros_for_empty_prompt": True}, "the Swift package has no such thing"),
        ("sd-batch-1", {"image_count": 2, "guidance_scale": 7.5}, "draws one picture and stops at the second"),
        ("sd-controlled", {"controlnet_images": {"Edges": SMALL}}, "Edges's picture is 32×32"),
        ("sd-controlled", {"controlnet_images": {"Edges": photograph()}, "controlnet_scale": 0.5}, "no such thing"),
        (
            "sd-controlled",
            {"controlnet_images": {"Edges": photograph()}, "guidance_scale": 0.0},
            "ControlNets take two",
        ),
        ("sd3", {"image": photograph(), "strength": 0.5}, "cannot start flow matching|needs VAEEncoder"),
        ("sd3", {"scheduler": "dpm"}, "draws Stable Diffusion 3 by flow matching"),
        ("sd3", {"steps": 1}, "flow matching needs two steps"),
    ],
)
def test_where_the_package_stops_is_told_before_any_model_is_loaded(
    studio: Studio, recipe: str, options: dict[str, Any], message: str
) -> None:
    pipeline = Pipeline.from_bundle(studio.bundle(recipe))
    with pytest.raises(PipelineError, match=message):
        pipeline(PROMPT, client="swift", **options)
    assert pipeline.bundle.loaded == ()


def test_a_safety_checker_that_takes_another_picture_is_told_before_any_step(changed: Change) -> None:
    def edit(document: dict[str, Any]) -> None:
        for entry in document["models"]["SafetyChecker"]["inputs"]:
            if entry["name"] == "images":
                entry["shape"] = [1, 128, 64, 3]

    pipeline = changed("sd", edit)
    with pytest.raises(PipelineError, match=r"takes images \[1, 128, 64, 3\], and the Swift package feeds \[1, 512"):
        pipeline(PROMPT, steps=2)
    assert pipeline(PROMPT, steps=2, safety=False)


def test_other_widths_than_sd3s_own_are_refused(changed: Change) -> None:
    def edit(document: dict[str, Any]) -> None:
        for entry in document["models"]["MultiModalDiffusionTransformer"]["inputs"]:
            if entry["name"] == "pooled_text_embeddings":
                entry["shape"][1] = 1024

    with pytest.raises(PipelineError, match=r"text_embeds .* gives \(2, 2048\) alone"):
        changed("sd3", edit)(PROMPT, steps=2)


def test_an_sdxl_unet_of_batch_1_and_one_without_its_encoder_are_refused(changed: Change) -> None:
    def edit(document: dict[str, Any]) -> None:
        del document["models"]["TextEncoder"]

    with pytest.raises(PipelineError, match="has no TextEncoder, without which the Swift package stops"):
        changed("sdxl", edit)(PROMPT, steps=2)


def test_a_picture_without_guidance_from_a_unet_of_batch_1(studio: Studio) -> None:
    """What `bundle.json` tells an app of such a UNet, and two pictures at once, which guidance forbids."""
    pictures = Pipeline.from_bundle(studio.bundle("sd-batch-1"))(PROMPT, steps=2, image_count=2)
    assert [picture.info["guidance_scale"] for picture in pictures] == ["0", "0"]


def test_what_no_app_can_ask_of_the_package_is_drawn_as_diffusers_does(studio: Studio) -> None:
    pipeline, said = Pipeline.from_bundle(studio.bundle("sd-adapted")), list[str]()
    options: dict[str, Any] = {"adapter_images": {"TinyT2IAdapter": photograph()}, "steps": 1}
    (picture,) = pipeline(PROMPT, on_warning=said.append, **options)
    assert picture.info["client"] == "diffusers"
    assert said[0] == "drawn as diffusers does (client=diffusers): the Swift package knows no T2I-Adapters"
    with pytest.raises(PipelineError, match="knows no T2I-Adapters; client=diffusers draws it"):
        pipeline(PROMPT, client="swift", **options)


def test_a_velocity_that_the_package_takes_for_noise_is_told(studio: Studio) -> None:
    said: list[str] = []
    Pipeline.from_bundle(studio.bundle("sd2-velocity"))(PROMPT, steps=2, on_warning=said.append)
    assert any(line.startswith("v-prediction: the UNet gives the velocity") for line in said)
    said.clear()
    Pipeline.from_bundle(studio.bundle("sd2"))(PROMPT, steps=2, on_warning=said.append)
    assert not any("v-prediction" in line for line in said)


def test_diffusers_takes_no_configuration_of_the_package(studio: Studio) -> None:
    with pytest.raises(RequestError, match="sets the Swift package's configuration"):
        Pipeline.from_bundle(studio.bundle("sd"))(PROMPT, client="diffusers", configuration=KARRAS)
