"""A checkpoint that predicts velocity, drawn with the Swift package's schedulers, which know noise alone.

Against diffusers' pipeline for velocity, in float32: the packages are float32 and the schedulers' arithmetic is theirs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel

from sdbuild.models.parity import psnr
from sdbuild.pipeline import Pipeline
from sdbuild.pipeline.clients.swift.schedulers import DPMSolver
from tests.pipeline.studio import Studio

STEPS, GUIDANCE = 20, 5.0
ALIKE_DB = 90.0


def text_states() -> np.ndarray:
    """(2, tokens, width): without the prompt and with it."""
    return np.random.default_rng(1).standard_normal((2, 77, 96), np.float32)


def first_latents() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((1, 4, 16, 8), np.float32)


@pytest.fixture(scope="module")
def expected(studio: Studio) -> np.ndarray:
    """The latents that diffusers decodes, drawn from velocity."""
    studio.bundle("sd2")
    checkpoint: Path = studio.root / "checkpoints/sd2"
    scheduler = DPMSolverMultistepScheduler.from_pretrained(checkpoint, subfolder="scheduler")
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(STEPS)
    unet = UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet").eval()
    states, latents = torch.from_numpy(text_states()), torch.from_numpy(first_latents())
    for step in scheduler.timesteps:
        with torch.inference_mode():
            without, with_ = unet(latents.repeat(2, 1, 1, 1), step, states).sample.chunk(2)
        latents = scheduler.step(without + GUIDANCE * (with_ - without), step, latents).prev_sample
    return latents.double().numpy()


@pytest.mark.parametrize("recipe", ["sd2", "sd2-chunked"])
def test_the_packages_scheduler_draws_it_as_diffusers_does(studio: Studio, expected: np.ndarray, recipe: str) -> None:
    bundle = Pipeline.from_bundle(studio.bundle(recipe)).bundle
    models = [bundle.model(name) for name in bundle.unet_files()]
    batch = models[0].inputs[0].shape[0]
    scheduler, latents = DPMSolver(STEPS), first_latents()
    states = text_states().transpose(0, 2, 1)[:, :, None, :]

    def predict(rows: slice) -> np.ndarray:
        count = len(states[rows])
        values = {
            "sample": np.repeat(latents, count, axis=0),
            "timestep": np.full(count, step, np.float32),
            "encoder_hidden_states": states[rows],
        }
        for model in models:
            values |= model.predict({feature.name: values[feature.name] for feature in model.inputs})
        return values["noise_pred"]

    for step in scheduler.time_steps:
        halves = [slice(0, 2)] if batch == 2 else [slice(0, 1), slice(1, 2)]
        without, with_ = np.split(np.concatenate([predict(half) for half in halves]), 2)
        latents = scheduler.step(without + np.float32(GUIDANCE) * (with_ - without), step, latents)
    assert scheduler.denoised is not None
    assert psnr(expected, scheduler.denoised.astype(np.float64)) >= ALIKE_DB


def test_the_bundle_says_what_it_gives_and_what_the_checkpoint_predicts(studio: Studio) -> None:
    document = Pipeline.from_bundle(studio.bundle("sd2")).bundle.document
    assert (document["prediction_type"], document["checkpoint_prediction_type"]) == ("epsilon", "v_prediction")
    assert document["scheduler"]["prediction_type"] == "epsilon"
    assert document["extensions"] == []


def test_the_velocity_itself_stays_available(studio: Studio) -> None:
    document = Pipeline.from_bundle(studio.bundle("sd2-velocity")).bundle.document
    assert (document["prediction_type"], document["checkpoint_prediction_type"]) == ("v_prediction", "v_prediction")
    assert document["scheduler"]["prediction_type"] == "v_prediction"
    assert document["extensions"] == ["v-prediction"]
    assert document["models"]["Unet"]["inputs"][0]["name"] == "sample"
