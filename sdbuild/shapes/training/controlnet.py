"""The ControlNet: learns to follow outlines, with the UNet that it is a copy of frozen (Zhang et al. 2023)."""

from __future__ import annotations

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from sdbuild.shapes.training.denoiser import Average, Examples, loss
from sdbuild.shapes.training.loop import Course, Say, run

_COURSE = Course("controlnet", steps=1000, rate=1e-3)
_BATCH = 32
_SEED = 4


def make(unet: UNet2DConditionModel) -> ControlNetModel:
    """A copy of the UNet's first half, whose outputs are zero at first."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 32, 64))


def train(unet: UNet2DConditionModel, examples: Examples, outlines: Tensor, say: Say) -> ControlNetModel:
    """Train for a finished UNet.

    Args:
        unet: the UNet; its weights stay.
        examples: what the UNet learnt from.
        outlines: (N, 64, 64) 8-bit, the outline of each example.
        say: told of progress.
    """
    torch.manual_seed(_SEED)
    generator = torch.Generator().manual_seed(_SEED)
    unet = unet.requires_grad_(False).to(memory_format=torch.channels_last)
    model = make(unet).requires_grad_(True).train()
    average = Average(model)

    def predict(rows: Tensor, noisy: Tensor, steps: Tensor, states: Tensor) -> Tensor:
        control = (outlines[rows].float() / 255)[:, None].expand(-1, 3, -1, -1)
        down, middle = model(noisy, steps, states, controlnet_cond=control, return_dict=False)
        predicted: Tensor = unet(
            noisy, steps, states, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
        return predicted

    run(
        _COURSE,
        model.parameters(),
        lambda _: loss(predict, examples, _BATCH, generator),
        say,
        lambda step: average.update(model, step),
    )
    model.load_state_dict(average.values)
    return model.eval()
