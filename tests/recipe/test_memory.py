"""What models need of a device's memory: exact counts, programs of real size, and what was measured on devices."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

from sdbuild.checkpoints import adapter_kinds, topology
from sdbuild.checkpoints.architecture import (
    Needs,
    Shape,
    controlnet_needs,
    decoder_needs,
    encoder_needs,
    text_encoder_needs,
    unet_needs,
)
from sdbuild.checkpoints.facts import CheckpointFacts, ComponentFacts, known_facts
from sdbuild.checkpoints.published import T2I_ADAPTERS
from sdbuild.estimate.bundle_memory import RESERVE, MemoryEstimate, ModelMemory, estimate
from sdbuild.families import FAMILIES
from sdbuild.recipe.catalogue import catalogue_directories
from sdbuild.recipe.load import load_target
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.target import Target
from sdbuild.recipe.vocabulary import AttentionImplementation

TARGETS = catalogue_directories("targets", Path(__file__).parent)
GIGABYTE = 10**9
PUBLISHED = {family.value: described.published.configs for family, described in FAMILIES.items()}

VERSIONS = {
    "sd1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd2": "stabilityai/stable-diffusion-2-1-base",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}


def elements(shapes: dict[str, tuple[int, ...]], prefixes: tuple[str, ...] = ("",)) -> int:
    return sum(prod(shape) for name, shape in shapes.items() if name.startswith(prefixes))


@pytest.mark.parametrize("family", [family for family in PUBLISHED if "unet" in PUBLISHED[family]])
def test_counts_of_weights_are_exact(family: str) -> None:
    shape, folders = Shape(8, 8), PUBLISHED[family]
    linear = {"use_linear_projection": True}  # a linear layer has as many weights as a convolution with one point
    assert unet_needs(folders["unet"], shape).parameters == elements(topology.unet({**folders["unet"], **linear}))
    vae = topology.vae({**folders["vae"], "in_channels": 3, "out_channels": 3})
    assert decoder_needs(folders["vae"], shape).parameters == elements(vae, ("decoder", "post_quant"))
    assert encoder_needs(folders["vae"], shape).parameters == elements(vae, ("encoder", "quant"))


def test_published_counts() -> None:
    """As model cards and papers state them."""
    counts = {
        family: unet_needs(folders["unet"], Shape(64, 64)).parameters
        for family, folders in PUBLISHED.items()
        if "unet" in folders
    }
    assert counts == {
        "sd1": 859_520_964,
        "sd2": 865_910_724,
        "sdxl": 2_567_463_684,
        "sdxl-refiner": 2_259_526_660,
    }
    text = text_encoder_needs(PUBLISHED["sdxl"]["text_encoder_2"], 77, 2, projection=True)
    assert text.parameters == 694_659_840
    assert controlnet_needs(PUBLISHED["sd1"]["unet"], Shape(64, 64)).parameters == 361_279_120
    adapters = {name: adapter_kinds.needs(config, Shape(64, 64)).parameters for name, config in T2I_ADAPTERS.items()}
    assert list(adapters.values()) == [77_000_640, 79_028_160]
    light = {"adapter_type": "light_adapter", "channels": [320, 640, 1280], "num_res_blocks": 4, "downscale_factor": 8}
    assert adapter_kinds.needs(light, Shape(64, 64)).parameters == 18_689_200
    consistency = unet_needs({**PUBLISHED["sd1"]["unet"], "time_cond_proj_dim": 256}, Shape(64, 64))
    assert consistency.parameters == counts["sd1"] + 256 * 320


def unet(family: str, size: int, attention: str, **settings: Any) -> Needs:
    shape = Shape(size, size, settings.pop("batch", 2), attention=AttentionImplementation(attention))
    return unet_needs(PUBLISHED[family]["unet"], shape, **settings)


def autoencoder(needs: Callable[..., Needs], size: int, width: int) -> Needs:
    return needs(PUBLISHED["sd1"]["vae"], Shape(size, size, 1, bytes=width))


# Counted in converted programs of real size by `python -m tests.benchmarks.bench_memory`, in 10^6 bytes.
PROGRAMS = [
    (lambda: unet("sd1", 64, "SPLIT_EINSUM"), 105.4),
    (lambda: unet("sd1", 64, "SPLIT_EINSUM_V2"), 105.4),
    (lambda: unet("sd1", 64, "ORIGINAL"), 568.7),
    (lambda: unet("sd1", 64, "SPLIT_EINSUM", batch=1), 52.7),
    (lambda: unet("sd1", 64, "SPLIT_EINSUM", residuals=True), 132.2),
    (lambda: unet("sd1", 64, "SPLIT_EINSUM", chunks=2), 115.7 + 148.4),
    (lambda: unet("sd1", 96, "SPLIT_EINSUM"), 422.9),
    (lambda: unet("sd2", 64, "SPLIT_EINSUM"), 105.4),
    (lambda: unet("sd2", 96, "ORIGINAL"), 1770.0),
    (lambda: unet("sdxl", 96, "SPLIT_EINSUM"), 151.6),
    (lambda: unet("sdxl", 128, "ORIGINAL"), 792.8),
    (lambda: controlnet_needs(PUBLISHED["sd1"]["unet"], Shape(64, 64)), 118.8),
    (lambda: autoencoder(decoder_needs, 64, 2), 335.6),
    (lambda: autoencoder(decoder_needs, 96, 2), 755.0),
    (lambda: autoencoder(decoder_needs, 96, 4), 1510.1),
    (lambda: autoencoder(decoder_needs, 128, 4), 2684.6),
    (lambda: autoencoder(encoder_needs, 64, 2), 202.9),
    (lambda: autoencoder(encoder_needs, 128, 4), 1623.2),
]


@pytest.mark.parametrize(("needs", "megabytes"), PROGRAMS)
def test_the_configuration_tells_what_programs_of_real_size_tell(needs: Callable[[], Needs], megabytes: float) -> None:
    assert needs().activations / 10**6 == pytest.approx(megabytes, rel=0.1)


def recipe(family: str, size: int, **fields: Any) -> tuple[Recipe, CheckpointFacts]:
    components = [name for name in ("text_encoder", "text_encoder_2") if name in PUBLISHED[family]]
    model = {"version": VERSIONS[family]}
    stated: dict[str, Any] = {
        "name": "r",
        "model": model,
        "components": (*components, "unet", "vae_decoder"),
        "latent": {"height": size, "width": size},
        "attention_implementation": "SPLIT_EINSUM",
        "unet": {"chunks": 2},
        "targets": ("t",),
    } | fields
    made = Recipe.model_validate(stated)
    facts = known_facts(made.model)
    assert facts is not None
    return made, facts


def on(target: str | Target, built: tuple[Recipe, CheckpointFacts]) -> MemoryEstimate:
    target = load_target(target, TARGETS) if isinstance(target, str) else target
    return estimate(built[0], target, built[1])


# Apple's tables say by an asterisk on which devices all models together were too much.
README = [
    *[(name, "sd2", True) for name in ("iphone-12-mini", "iphone-13")],
    *[(name, "sd2", False) for name in ("iphone-12-pro", "iphone-13-pro-max", "iphone-14", "iphone-14-pro-max")],
    *[(name, "sd2", False) for name in ("ipad-pro-m1", "ipad-pro-m2")],
    *[(name, "sdxl", True) for name in ("iphone-12-pro", "iphone-13-pro-max", "iphone-14-pro-max")],
    *[(name, "sdxl", False) for name in ("iphone-15-pro", "ipad-pro-m1", "ipad-pro-m2")],
]


@pytest.mark.parametrize(("target", "family", "reduced"), README)
def test_the_published_measurements_come_out(target: str, family: str, reduced: bool) -> None:
    """SD 2.1 with 6 bits; SDXL at 768×768 with 4 bits and the autoencoder that works in half precision."""
    if family == "sd2":
        found = on(target, recipe(family, 64, quantization={"unet": 6, "text_encoder": 6}))
    else:
        settings = {"quantization": {"unet": 4}, "precision": {"vae_decoder": "float16"}}
        found = on(target, recipe(family, 96, **settings))
    assert found.one_at_a_time <= found.budget
    assert (found.together > found.budget) is reduced


def test_reported_crashes_come_out() -> None:
    """ml-stable-diffusion#171: SD 1.5 and a ControlNet in half precision end an app on an iPhone 14."""
    with_control = recipe(
        "sd1",
        64,
        components=("text_encoder", "unet", "vae_decoder", "vae_encoder"),
        controlnets=({"version": "lllyasviel/sd-controlnet-scribble"},),
    )
    assert not on("iphone-14", with_control).fits
    smaller = with_control[0].model_copy(update={"reduce_memory": True})
    assert on("iphone-14", (smaller, with_control[1])).fits


def test_where_compressed_weights_are_written_out() -> None:
    quantized = recipe("sd1", 64, quantization={"unet": 6})
    phone = load_target("iphone-15-pro", TARGETS)

    def weights(built: tuple[Recipe, CheckpointFacts], target: Target) -> int:
        return next(model.weights for model in on(target, built).models if model.part == "unet")

    assert weights(quantized, phone) == 859_520_964 * 6 // 8
    assert weights(quantized, phone.model_copy(update={"os_version": "16.2"})) == 859_520_964 * 2
    on_gpu = (quantized[0].model_copy(update={"compute_unit": "CPU_AND_GPU"}), quantized[1])
    assert weights(on_gpu, phone) == 859_520_964 * 2


def test_what_is_loaded_at_the_same_time() -> None:
    sizes = {
        "text_encoder": 1,
        "text_encoder_2": 2,
        "vae_encoder": 4,
        "vae_decoder": 8,
        "safety_checker": 16,
        "unet": 100,
        "controlled_unet": 90,
        "controlnet-A": 20,
        "controlnet-B": 30,
        "unet_refiner": 120,
        "adapted_unet": 95,
        "t2i_adapter-A": 25,
    }
    models = tuple(ModelMemory(part, size - 1, 1) for part, size in sizes.items())
    found = MemoryEstimate(models, 10 * GIGABYTE, False)
    assert found.together - RESERVE == 1 + 2 + 4 + 8 + 16 + (90 + 20 + 30)
    assert found.one_at_a_time - RESERVE == 90 + 20 + 30
    assert found.needed == found.together
    encoders = MemoryEstimate(models[:2], 0, True)
    assert (encoders.needed - RESERVE, encoders.fits) == (3, False)


def test_t2i_adapters_are_done_before_the_first_step() -> None:
    sizes = {"unet": 100, "adapted_unet": 101, "t2i_adapter-A": 60, "t2i_adapter-B": 50, "vae_decoder": 8}
    found = MemoryEstimate(tuple(ModelMemory(part, size, 0) for part, size in sizes.items()), 0, True)
    assert found.one_at_a_time - RESERVE == 60 + 50
    assert found.together - RESERVE == 101 + 60 + 50 + 8


def test_the_features_are_inputs_of_the_unet() -> None:
    plain, adapted = (unet("sd1", 64, "SPLIT_EINSUM", features=features) for features in (False, True))
    elements = 320 * 64**2 + 640 * 32**2 + 1280 * 16**2 + 1280 * 8**2
    assert adapted.activations - plain.activations == 2 * 2 * elements
    plain, adapted = (unet("sdxl", 96, "SPLIT_EINSUM", features=features) for features in (False, True))
    assert adapted.activations - plain.activations == 2 * 2 * (320 * 48**2 + 640 * 48**2 + 2 * 1280 * 24**2)


def test_the_estimate_counts_t2i_adapters() -> None:
    built = recipe("sd1", 64, t2i_adapters=({"version": "TencentARC/t2iadapter_canny_sd14v1"}, {"version": "a/b"}))
    models = {model.part: model.weights for model in on("iphone-15-pro", built).models}
    assert models["adapted_unet"] == models["unet"]
    # Of an adapter that nothing is known of, what TencentARC's adapters with three channels have.
    assert (models["t2i_adapter-0"], models["t2i_adapter-1"]) == (77_000_640 * 2, 77_369_280 * 2)


def test_what_the_checkpoint_does_not_tell_is_left_out() -> None:
    built, _ = recipe("sd1", 64)
    nothing = CheckpointFacts("sd1", {"unet": ComponentFacts({}), "vae": ComponentFacts({})})
    assert on("iphone-15-pro", (built, nothing)).models == ()
    counted = CheckpointFacts("sd1", {"unet": ComponentFacts({}, None, 1000)})
    assert on("iphone-15-pro", (built, counted)).models == (ModelMemory("unet", 2000, 0),)
