"""What the registered networks are compared with: the libraries' own models, each called as ours is.

Each function takes a component's name, its folder and the arguments of `sdbuild.models.build.build`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdbuild.checkpoints.checkpoint import Checkpoint
from sdbuild.checkpoints.tiny_autoencoder import TINY_CLASS
from sdbuild.families import takes_penultimate
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.component import read_config
from sdbuild.models.errors import ModelError
from sdbuild.models.original import Original


def _load(model: type[Any], checkpoint: Path) -> Any:
    loaded, report = model.from_pretrained(
        checkpoint, variant=Checkpoint.open(checkpoint).variant, local_files_only=True, output_loading_info=True
    )
    if missing := [*report["missing_keys"], *report["mismatched_keys"]]:
        raise ModelError(f"{checkpoint}: {model.__name__} did not find {missing}.")
    return loaded.float().eval()


def text_encoder(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Transformers' CLIP."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    projected = "CLIPTextModelWithProjection" in (read_config(checkpoint).get("architectures") or ())
    model = _load(CLIPTextModelWithProjection if projected else CLIPTextModel, checkpoint)
    penultimate, skip = projected or takes_penultimate(component, arguments.family), arguments.clip_skip

    def run(input_ids: Tensor) -> tuple[Tensor, ...]:
        output = model(input_ids.long(), output_hidden_states=True)
        pooled = output.text_embeds if projected else output.pooler_output
        if penultimate:
            return output.hidden_states[-2 - skip], pooled
        # As diffusers' pipelines do: an earlier state is normalised like the last.
        norm = getattr(model, "text_model", model).final_layer_norm
        return norm(output.hidden_states[-1 - skip]) if skip else output.last_hidden_state, pooled

    return Original(model, run)


def t5(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Transformers' T5."""
    from transformers import T5EncoderModel

    model = _load(T5EncoderModel, checkpoint)

    def run(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        # Ours is 1 for padding, transformers' for the text.
        states = model(input_ids.long(), attention_mask=1 - attention_mask).last_hidden_state
        return (states.transpose(1, 2).unsqueeze(2),)

    return Original(model, run)


def transformer(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Diffusers' transformer of Stable Diffusion 3."""
    from diffusers import SD3Transformer2DModel

    model = _load(SD3Transformer2DModel, checkpoint)

    def run(latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor) -> tuple[Tensor, ...]:
        output: tuple[Tensor, ...] = model(
            latents,
            timestep=timestep,
            encoder_hidden_states=text.squeeze(2).transpose(1, 2),
            pooled_projections=pooled.flatten(1),
            return_dict=False,
        )
        return output

    return Original(model, run)


def unet(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Diffusers' UNet."""
    from diffusers import UNet2DConditionModel

    from sdbuild.models.additions import additions
    from sdbuild.models.unet import split_conditions

    model = _load(UNet2DConditionModel, checkpoint)

    def run(sample: Tensor, timestep: Tensor, text: Tensor, *conditions: Tensor) -> tuple[Tensor, ...]:
        keywords, added = split_conditions(model.config, conditions)
        keywords |= additions(added, adapter_ready=arguments.adapter_ready)
        output: tuple[Tensor, ...] = model(
            sample, timestep, text.squeeze(2).transpose(1, 2), return_dict=False, **keywords
        )
        return output

    return Original(model, run)


def controlnet(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Diffusers' ControlNet."""
    from diffusers import ControlNetModel

    from sdbuild.models.unet import split_conditions

    model = _load(ControlNetModel, checkpoint)

    def run(
        sample: Tensor, timestep: Tensor, text: Tensor, condition: Tensor, *conditions: Tensor
    ) -> tuple[Tensor, ...]:
        keywords, _ = split_conditions(model.config, conditions)
        skips, middle = model(
            sample, timestep, text.squeeze(2).transpose(1, 2), condition, return_dict=False, **keywords
        )
        return (*skips, middle)

    return Original(model, run)


def t2i_adapter(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Diffusers' T2I-Adapter."""
    from diffusers import T2IAdapter

    model = _load(T2IAdapter, checkpoint)
    return Original(model, lambda picture: tuple(model(picture)))


def multilingual_projection(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """The TorchScript module itself."""
    from sdbuild.models.multilingual import load

    model = load(checkpoint).float()

    def run(embeddings: Tensor) -> tuple[Tensor, ...]:
        states = model(embeddings)
        return (states if states.dim() == 4 else states.transpose(1, 2).unsqueeze(2),)

    return Original(model, run)


def vae_decoder(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Diffusers' autoencoder, decoding."""
    model = _load(_autoencoder(checkpoint), checkpoint)
    mean, deviation = _statistics(model, arguments)
    return Original(model, lambda z: (model.decode(z * deviation + mean).sample,))


def _statistics(model: Any, arguments: BuildArguments) -> tuple[Tensor, Tensor]:
    """Mean and spread of latents, as diffusers' SDXL pipelines lay them over what they decode; else 0 and 1."""
    mean, deviation = (getattr(model.config, name, None) for name in ("latents_mean", "latents_std"))
    if not arguments.latent_statistics or mean is None or deviation is None:
        return torch.zeros(()), torch.ones(())
    return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(deviation).view(1, -1, 1, 1)


def vae_encoder(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Diffusers' autoencoder, encoding."""
    from diffusers import AutoencoderTiny

    model = _load(_autoencoder(checkpoint), checkpoint)
    mean, deviation = _statistics(model, arguments)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        if isinstance(model, AutoencoderTiny):
            latents = model.encode(x).latents
            return (torch.cat([latents, torch.full_like(latents, -30.0)], dim=1),)
        # Not the distribution's parameters: those have their log variance clamped.
        moments = model.encoder(x)
        moments = moments if model.quant_conv is None else model.quant_conv(moments)
        center, log_variance = moments.chunk(2, dim=1)
        # Of a sample, exp(log_variance / 2) × noise + center, the same mean and spread are taken off.
        return (torch.cat([(center - mean) / deviation, log_variance - 2 * deviation.log()], dim=1),)

    return Original(model, run)


def _autoencoder(checkpoint: Path) -> type[Any]:
    """The class that a folder's configuration names."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    tiny = read_config(checkpoint).get("_class_name") == TINY_CLASS
    return AutoencoderTiny if tiny else AutoencoderKL  # type: ignore[no-any-return]


def safety_checker(component: str, checkpoint: Path, arguments: BuildArguments) -> Original:
    """Diffusers' safety checker, without its loops."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from torch.nn.functional import normalize

    model = _load(StableDiffusionSafetyChecker, checkpoint)
    for concepts in (model.concept_embeds, model.special_care_embeds):
        concepts.data = normalize(concepts.data)  # once, as the conversion does, and not for every picture

    def run(clip_input: Tensor, images: Tensor, adjustment: Tensor) -> tuple[Tensor, ...]:
        # Not the original's forward, which blackens its input in place, rounds, and keeps its scores to itself.
        embedding = normalize(model.visual_projection(model.vision_model(clip_input)[1]))
        special = embedding @ model.special_care_embeds.T - model.special_care_embeds_weights
        scores = embedding @ model.concept_embeds.T - model.concept_embeds_weights + adjustment
        scores = scores + 0.01 * torch.any(special + adjustment > 0, dim=1, keepdim=True)
        unsafe = torch.any(scores > 0, dim=1)
        return torch.where(unsafe[:, None, None, None], 0.0, images), unsafe.float(), scores

    return Original(model, run)
