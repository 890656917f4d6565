"""ControlNet (Zhang et al. 2023): the UNet's first half, whose outputs are added to the UNet's skip connections."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel

from sdbuild.checkpoints.checkpoint import Checkpoint
from sdbuild.models.additions import residuals
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.attention import attention_function
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.unet import (
    check_latent_size,
    condition_inputs,
    instantiate,
    latent_inputs,
    rearrange,
    sinusoids,
    split_conditions,
)
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec


class _ControlNet(ControlNetModel):  # type: ignore[misc]  # diffusers has no types
    """diffusers' ControlNet under the Swift package's calling convention."""

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        controlnet_cond: torch.Tensor,
        *conditions: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The residuals of the skip connections, then the middle block's."""
        keywords, _ = split_conditions(self.config, conditions)
        skips, middle = super().forward(
            sample, timestep, encoder_hidden_states, controlnet_cond, return_dict=False, **keywords
        )
        return (*skips, middle)


def build_controlnet(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The ControlNet of `checkpoint`; see `BuildArguments`."""
    config = read_config(checkpoint, "ControlNetModel")
    model = instantiate(_ControlNet, config, checkpoint)
    batch, latent_height, latent_width = arguments.batch, arguments.latent_height, arguments.latent_width
    check_latent_size(model, latent_height, latent_width)
    constants = rearrange(model, attention_function(arguments.attention_implementation, arguments.query_chunk))
    # The condition's encoder halves the image as often as it has channel counts, but for the first.
    factor = 2 ** (len(model.config.conditioning_embedding_out_channels) - 1)
    condition = TensorSpec(
        "controlnet_cond",
        (batch, model.config.conditioning_channels, factor * latent_height, factor * latent_width),
        "float16",
        "The condition (edges, depth, pose …) as an RGB image, 0 to 1, once for each batch entry.",
    )
    return ComponentModel(
        component=component,
        module=model,
        inputs=(
            *latent_inputs(model.config, batch, latent_height, latent_width, arguments.text_sequence_length),
            condition,
            *condition_inputs(model.config, batch, arguments.family),
        ),
        outputs=tuple(residuals(model, batch, latent_height, latent_width, "float32")),
        weights=map_weights(model, Checkpoint.open(checkpoint), given=constants),
        float32_modules=sinusoids(model),
    )
