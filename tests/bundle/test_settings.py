"""The settings that an app makes: what they are for each family, and that the package has every one of these names."""

from __future__ import annotations

from typing import Any

import pytest

from sdbuild.bundle.settings import Configuration, SwiftPackage, swift_package

# The stored properties of PipelineConfiguration that a checkpoint or a bundle decides, and their defaults
# (StableDiffusionPipeline.Configuration.swift of apple/ml-stable-diffusion at e12202c).
DEFAULTS: dict[str, Any] = {
    "refinerStart": 0.8,
    "guidanceScale": 7.5,
    "disableSafety": False,
    "schedulerType": "pndmScheduler",
    "schedulerTimestepSpacing": "linspace",
    "schedulerTimestepShift": 3.0,
    "rngType": "numpyRNG",
    "encoderScaleFactor": 0.18215,
    "decoderScaleFactor": 0.18215,
    "decoderShiftFactor": 0.0,
    "originalSize": 1024.0,
    "cropsCoordsTopLeft": 0.0,
    "targetSize": 1024.0,
    "aestheticScore": 6.0,
    "negativeAestheticScore": 2.5,
}


def settings(family: str = "sd1", *models: str, reduce_memory: bool = False, **changes: Any) -> SwiftPackage:
    document = {
        "family": family,
        "models": {name: {} for name in ("Unet", "VAEDecoder", *models)},
        "controlnets": [],
        "image": {"height": 512, "width": 512},
        "unet": {"batch": 2, "chunks": 1},
        "vae": {"scaling_factor": 0.18215, "shift_factor": 0.0},
        "scheduler": {"_class_name": "PNDMScheduler"},
        "compute_unit": "CPU_AND_NE",
    } | changes
    return swift_package(document, reduce_memory=reduce_memory)


def configuration(*arguments: Any, **changes: Any) -> dict[str, Any]:
    return settings(*arguments, **changes).configuration.model_dump(by_alias=True)


def test_for_the_checkpoint_that_the_package_was_written_for_they_are_its_defaults() -> None:
    assert configuration("sd1", "SafetyChecker") == DEFAULTS


def test_every_name_is_one_of_the_package() -> None:
    assert {field.alias for field in Configuration.model_fields.values()} == set(DEFAULTS)


def test_sdxl_is_told_the_pictures_size_the_spacing_and_the_factor() -> None:
    found = configuration(
        "sdxl",
        image={"height": 768, "width": 1152},
        scheduler={"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
        vae={"scaling_factor": 0.13025, "shift_factor": 0.0},
    )
    changed = {name for name in DEFAULTS if found[name] != DEFAULTS[name]}
    assert (found["originalSize"], found["targetSize"]) == (1152.0, 1152.0)
    assert (found["schedulerType"], found["schedulerTimestepSpacing"]) == ("dpmSolverMultistepScheduler", "leading")
    assert (found["encoderScaleFactor"], found["decoderScaleFactor"]) == (0.13025, 0.13025)
    assert found["guidanceScale"] == 5.0
    assert changed == {
        *("originalSize", "targetSize", "schedulerType", "schedulerTimestepSpacing", "guidanceScale"),
        *("encoderScaleFactor", "decoderScaleFactor", "disableSafety"),
    }


def test_sd3_is_told_its_shift_and_factors() -> None:
    found = configuration("sd3", scheduler={"shift": 2.5}, vae={"scaling_factor": 1.5305, "shift_factor": 0.0609})
    assert (found["schedulerType"], found["schedulerTimestepShift"]) == ("discreteFlowScheduler", 2.5)
    assert (found["decoderScaleFactor"], found["decoderShiftFactor"]) == (1.5305, 0.0609)
    assert settings("sd3").pipeline == "StableDiffusion3Pipeline"


@pytest.mark.parametrize(
    ("scheduler", "spacing"),
    [
        ({}, "linspace"),
        ({"timestep_spacing": "linspace"}, "linspace"),
        ({"timestep_spacing": "trailing"}, "linspace"),
        ({"timestep_spacing": "leading"}, "leading"),
        ({"timestep_spacing": "leading", "use_karras_sigmas": True}, "karras"),
    ],
)
def test_spacing(scheduler: dict[str, Any], spacing: str) -> None:
    assert configuration("sdxl", scheduler=scheduler)["schedulerTimestepSpacing"] == spacing


def test_a_unet_that_is_not_guided_is_not_guided() -> None:
    assert configuration("sd1", unet={"batch": 1, "chunks": 1})["guidanceScale"] == 0.0
    turbo = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
    assert configuration("sdxl", scheduler=turbo)["guidanceScale"] == 1.0


def test_the_initialiser_is_told_what_the_bundle_holds() -> None:
    bare = settings().model_dump(by_alias=True)
    assert bare["pipeline"] == "StableDiffusionPipeline"
    assert bare["initializer"] == {
        "computeUnits": "cpuAndNeuralEngine",
        "controlNet": (),
        "disableSafety": True,
        "reduceMemory": False,
        "useMultilingualTextEncoder": False,
    }
    models = ("MultilingualTextEncoderProjection", "SafetyChecker")
    controlnets = [{"name": "Canny"}, {"name": "Depth"}]
    full = settings("sd1", *models, reduce_memory=True, controlnets=controlnets, compute_unit="CPU_AND_GPU")
    assert full.initializer.model_dump(by_alias=True) == {
        "computeUnits": "cpuAndGPU",
        "controlNet": ("Canny", "Depth"),
        "disableSafety": False,
        "reduceMemory": True,
        "useMultilingualTextEncoder": True,
    }
