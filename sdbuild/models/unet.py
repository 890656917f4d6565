"""The UNet: diffusers' own, its blocks rearranged for the Neural Engine, behind the Swift package's interface."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from sdbuild.checkpoints.checkpoint import Checkpoint, ConstantWeight
from sdbuild.families import FAMILIES, Family
from sdbuild.models.additions import additions, features, residuals
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.attention import AttentionFunction, attention_function
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.errors import ModelError
from sdbuild.models.layers import GroupNorm, Sinusoid, pointwise, replace_group_norms
from sdbuild.models.transformer import ChannelsFirstTransformer
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec

# Fields of a configuration that would change the interface or the arithmetic, and the values that are understood.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "addition_embed_type": (None, "text_time"),
    "attention_type": (None, "default"),
    "class_embed_type": (None,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (None, False),
    "encoder_hid_dim_type": (None, "text_proj"),
    "global_pool_conditions": (None, False),
    "num_class_embeds": (None,),
    "time_embedding_type": (None, "positional"),
}


class _UNet(UNet2DConditionModel):  # type: ignore[misc]  # diffusers has no types
    """diffusers' UNet under the Swift package's calling convention: inputs by position, text as (B, D, 1, L)."""

    adapter_ready = False

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *conditions: torch.Tensor,
    ) -> tuple[torch.Tensor]:
        """Noise prediction; `conditions` are the inputs that `condition_inputs` lists, then what is added within."""
        keywords, added = split_conditions(self.config, conditions)
        keywords |= additions(added, adapter_ready=self.adapter_ready)
        output: tuple[torch.Tensor] = super().forward(
            sample, timestep, encoder_hidden_states, return_dict=False, **keywords
        )
        return output


def build_unet(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The UNet of `checkpoint`; see `BuildArguments`.

    Raises:
        ModelError: it should take both a ControlNet's residuals and a T2I-Adapter's features.
    """
    if arguments.controlnet_ready and arguments.adapter_ready:
        raise ModelError("A UNet takes a ControlNet's residuals or a T2I-Adapter's features, not both.")
    config = read_config(checkpoint, "UNet2DConditionModel")
    unet = instantiate(_UNet, config, checkpoint)
    batch, latent_height, latent_width = arguments.batch, arguments.latent_height, arguments.latent_width
    check_latent_size(unet, latent_height, latent_width)
    constants = rearrange(unet, attention_function(arguments.attention_implementation, arguments.query_chunk))
    inputs = [
        *latent_inputs(unet.config, batch, latent_height, latent_width, arguments.text_sequence_length),
        *condition_inputs(unet.config, batch, arguments.family),
    ]
    if arguments.controlnet_ready:
        inputs += residuals(unet, batch, latent_height, latent_width, "float16")
    if arguments.adapter_ready:
        unet.adapter_ready = True
        inputs += features(unet, batch, latent_height, latent_width)
    noise = TensorSpec(
        "noise_pred",
        (batch, unet.config.out_channels, latent_height, latent_width),
        "float32",
        "What the model predicts for each latent: noise, or velocity where the scheduler is set to v-prediction.",
    )
    return ComponentModel(
        component=component,
        module=unet,
        inputs=tuple(inputs),
        outputs=(noise,),
        weights=map_weights(unet, Checkpoint.open(checkpoint), given=constants),
        float32_modules=sinusoids(unet),
    )


def instantiate(model: type[Any], config: Mapping[str, Any], checkpoint: Path) -> Any:
    """A diffusers model on the meta device, after a look at the fields that could not be honoured.

    Raises:
        ModelError: names the field of config.json that is not supported.
    """
    for field, values in _SUPPORTED.items():
        if config.get(field) not in values:
            raise ModelError(
                f"{checkpoint / 'config.json'}: {field} = {config[field]!r} is not supported; "
                f"supported: {', '.join(repr(value) for value in values)}."
            )
    # diffusers remarks on fields that this class does not know, which `_SUPPORTED` has judged already.
    logging.getLogger("diffusers.configuration_utils").setLevel(logging.ERROR)
    try:
        with torch.device("meta"):
            return model.from_config(dict(config)).eval().requires_grad_(False)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{checkpoint / 'config.json'}: diffusers cannot build this model: {error}") from error


def rearrange(model: nn.Module, attend: AttentionFunction) -> dict[str, ConstantWeight]:
    """Put transformers, norms and timestep embeddings into the Neural Engine's layout, in place.

    Returns:
        The weights that the checkpoint does not hold.

    Raises:
        ModelError: there is attention outside of the transformers that are known how to rearrange.
    """
    for path, child in list(model.named_modules()):
        if isinstance(child, Transformer2DModel):
            model.set_submodule(path, ChannelsFirstTransformer(child, attend))
    for path, child in list(model.named_modules()):
        if isinstance(child, nn.Dropout):
            # Would be exported as a copy.
            model.set_submodule(path, nn.Identity())
        if isinstance(child, Attention | DualTransformer2DModel):
            kind = type(model.get_submodule(path.rpartition(".attentions")[0])).__name__
            raise ModelError(f"config.json: blocks of type {kind} are not supported.")
    replace_group_norms(model, GroupNorm)
    if isinstance(model.encoder_hid_proj, nn.Linear):
        model.encoder_hid_proj = pointwise(model.encoder_hid_proj)
    constants: dict[str, ConstantWeight] = {}
    for path in ("time_proj", "add_time_proj"):
        if (original := getattr(model, path, None)) is not None:
            sinusoid = Sinusoid(
                original.num_channels, original.flip_sin_to_cos, original.downscale_freq_shift, original.scale
            )
            setattr(model, path, sinusoid)
            constants |= sinusoid.constant(path)
    return constants


def sinusoids(model: nn.Module) -> tuple[str, ...]:
    """The paths of the timestep embeddings, which need float32."""
    return tuple(path for path, child in model.named_modules() if isinstance(child, Sinusoid))


def latent_inputs(config: Any, batch: int, height: int, width: int, tokens: int) -> list[TensorSpec]:
    """The inputs that every UNet and ControlNet has."""
    return [
        TensorSpec(
            "sample",
            (batch, config.in_channels, height, width),
            "float16",
            "The noisy latents, one for each batch entry"
            + (", with the further channels of this checkpoint appended." if config.in_channels > 4 else "."),
        ),
        TensorSpec("timestep", (batch,), "float32", "The diffusion timestep, 0 to 999, the same for the whole batch."),
        TensorSpec(
            "encoder_hidden_states",
            (batch, config.encoder_hid_dim or _text_width(config), 1, tokens),
            "float16",
            "The text encoder's hidden states, width before tokens; for guidance the unconditional ones first.",
        ),
    ]


def condition_inputs(config: Any, batch: int, family: Family | None) -> list[TensorSpec]:
    """The inputs that only some families have, in the order in which `split_conditions` takes them."""
    inputs = []
    if config.addition_embed_type == "text_time":
        count = _time_ids(config, family)
        text_width = config.projection_class_embeddings_input_dim - count * config.addition_time_embed_dim
        inputs += [
            TensorSpec("text_embeds", (batch, text_width), "float16", "The second text encoder's pooled output."),
            TensorSpec(
                "time_ids",
                (batch, count),
                "float16",
                "Original height and width, crop top and left, "
                + ("and the aesthetic score." if count == 5 else "target height and width, in pixels."),
            ),
        ]
    if getattr(config, "time_cond_proj_dim", None):
        inputs.append(
            TensorSpec(
                "timestep_cond",
                (batch, config.time_cond_proj_dim),
                "float16",
                "The embedded guidance scale of a latent consistency model.",
            )
        )
    return inputs


def split_conditions(
    config: Any, conditions: tuple[torch.Tensor, ...]
) -> tuple[dict[str, Any], tuple[torch.Tensor, ...]]:
    """The keyword arguments of diffusers for the inputs of `condition_inputs`, and the inputs that follow them."""
    keywords: dict[str, Any] = {}
    if config.addition_embed_type == "text_time":
        keywords["added_cond_kwargs"] = {"text_embeds": conditions[0], "time_ids": conditions[1]}
        conditions = conditions[2:]
    if getattr(config, "time_cond_proj_dim", None):
        keywords["timestep_cond"] = conditions[0]
        conditions = conditions[1:]
    return keywords, conditions


def check_latent_size(model: Any, height: int, width: int) -> None:
    """Refuse sizes that cannot be halved as often as the model does.

    Raises:
        ModelError: names the next smaller size that works.
    """
    factor = 2 ** sum(block.downsamplers is not None for block in model.down_blocks)
    if height % factor or width % factor:
        near = [max(size // factor, 1) * factor for size in (height, width)]
        raise ModelError(
            f"A latent of {height} by {width} cannot be halved {factor.bit_length() - 1} times: both must be multiples "
            f"of {factor}, for example {near[0]} by {near[1]}."
        )


def _text_width(config: Any) -> int:
    width = config.cross_attention_dim
    return int(width if isinstance(width, int) else next(iter(width)))


def _time_ids(config: Any, family: Family | None) -> int:
    """Six sizes for SDXL; the refiner has the aesthetic score instead of the target size, which makes five.

    The configuration gives only the sum of the widths: text_embeds + ids × addition_time_embed_dim. The refiner's one
    text encoder makes its pooled output as wide as its hidden states.
    """
    remaining = config.projection_class_embeddings_input_dim - 5 * config.addition_time_embed_dim
    looks_like_refiner = remaining == _text_width(config)
    if family is Family.REFINER and not looks_like_refiner:
        raise ModelError(
            "config.json: this is no refiner: its text states are "
            f"{_text_width(config)} wide, a refiner's are as wide as its pooled text state, {remaining}."
        )
    if family is None:
        family = Family.REFINER if looks_like_refiner else Family.SDXL
    return FAMILIES[family].time_ids
