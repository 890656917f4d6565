"""Noise from velocity: ε = α·v + σ·x, in every interface that a UNet has, and with latents as exact as they are fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sdbuild.builtin import tiny
from sdbuild.models.build import build
from sdbuild.models.noise import NoiseOfVelocity, original_noise, predict_noise
from sdbuild.models.original import reference
from sdbuild.models.parity import psnr
from sdbuild.stages import prediction


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sd2")
    tiny.generate("tiny-sd2", root, ["", "unet", "scheduler"])
    (root / "prediction").mkdir()
    prediction.run({"index": root}, {}, root / "prediction", lambda fraction, message: None)
    return root


def shares() -> np.ndarray:
    """ᾱ of the released schedule, by its definition."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    return np.cumprod(1 - betas)


def module(checkpoint: Path) -> NoiseOfVelocity:
    model = predict_noise(
        build("unet", checkpoint / "unet", latent_height=16, latent_width=16), checkpoint / "prediction"
    )
    return model.materialise().noise


@pytest.mark.parametrize("step", [0, 1, 500, 999])
def test_at_a_training_step_the_formula_holds(checkpoint: Path, step: int) -> None:
    generator = np.random.default_rng(step)
    velocity, sample = generator.standard_normal((2, 2, 4, 8, 8))
    share = shares()[step]
    expected = np.sqrt(share) * velocity + np.sqrt(1 - share) * sample
    given = [torch.from_numpy(array).float() for array in (velocity, sample)]
    ours = module(checkpoint)(*given, torch.full((2,), float(step)))
    assert psnr(expected, ours.double().numpy()) > 130


def test_between_two_steps_it_is_between(checkpoint: Path) -> None:
    noise = module(checkpoint)
    velocity, sample = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    low, middle, high = (noise(velocity, sample, torch.tensor([step])) for step in (400.0, 400.25, 401.0))
    torch.testing.assert_close(middle, 0.75 * low + 0.25 * high)
    # Beyond the last step there is nothing to move towards.
    torch.testing.assert_close(
        noise(velocity, sample, torch.tensor([999.5])), noise(velocity, sample, torch.tensor([999.0]))
    )


def test_what_is_appended_to_the_latents_is_no_part_of_the_noise(checkpoint: Path) -> None:
    noise = module(checkpoint)
    velocity, sample = torch.randn(1, 4, 8, 8), torch.randn(1, 9, 8, 8)
    time = torch.tensor([600.0])
    assert torch.equal(noise(velocity, sample, time), noise(velocity, sample[:, :4], time))


@pytest.mark.parametrize(("batch", "controlled"), [(1, False), (2, False), (2, True)])
def test_the_model_agrees_with_the_original(checkpoint: Path, batch: int, controlled: bool) -> None:
    arguments = {"latent_height": 16, "latent_width": 16, "batch": batch, "controlnet_ready": controlled}
    plain = build("unet", checkpoint / "unet", **arguments)
    model = predict_noise(plain, checkpoint / "prediction")
    assert [spec.name for spec in model.inputs] == [spec.name for spec in plain.inputs]
    assert {spec.name for spec in model.inputs if spec.dtype == "float32"} == {"sample", "timestep"}
    assert model.float32_modules == ("network.time_proj", "noise")
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(spec.shape, generator=generator) for spec in model.inputs]
    inputs[1] = torch.full((batch,), 700.0)
    original = reference("unet", checkpoint / "unet", **arguments)
    with torch.inference_mode():
        (ours,) = model.materialise()(*inputs)
        (theirs,) = original_noise(original, checkpoint / "prediction")(*inputs)
        (velocity,) = original(*inputs)
    share = shares()[700]
    expected = np.sqrt(share) * velocity.double().numpy() + np.sqrt(1 - share) * inputs[0].double().numpy()
    assert psnr(expected, theirs.double().numpy()) > 120
    assert psnr(expected, ours.double().numpy()) > 100
