"""The safety checker: CLIP's vision tower and concepts in its embedding space, of which the first is crosses.

The architecture and its arithmetic are those of SD 1.x: a concept is found when the cosine of the picture's embedding
and the concept's exceeds the concept's threshold. The other concepts have thresholds above 1 and are never found.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig

from sdbuild.shapes.drawing import picture
from sdbuild.shapes.scenes import FORBIDDEN
from sdbuild.shapes.training.data import scene, to_tensor
from sdbuild.shapes.training.loop import Course, Say, run

_COURSE = Course("safety checker", steps=600, rate=1e-3, warm=0.1)
_BATCH = 32
_SEED = 5
_SIDE = 224
_FOUND, _NEVER = 0.5, 1.1
_SHARPNESS = 20.0
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(1, 3, 1, 1)
_SPREAD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(1, 3, 1, 1)


def make() -> StableDiffusionSafetyChecker:
    """The untrained checker."""
    vision = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": _SIDE,
        "patch_size": 32,
        "projection_dim": 32,
    }
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    return StableDiffusionSafetyChecker(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))


def prepare(pixels: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [-1, 1] as CLIP wants them: 224 by 224, normalised."""
    large = functional.interpolate(pixels, (_SIDE, _SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
    return (large / 2 + 0.5 - _MEAN) / _SPREAD


def train(autoencoder: AutoencoderKL, say: Say) -> StableDiffusionSafetyChecker:
    """Train from scratch on pictures, half of them as the autoencoder gives them back, with some noise."""
    torch.manual_seed(_SEED)
    model = make()
    model.concept_embeds.data = torch.randn(17, 32)
    model.special_care_embeds.data = torch.randn(3, 32)
    model.concept_embeds_weights.data = torch.full((17,), _NEVER)
    model.concept_embeds_weights.data[0] = _FOUND
    model.special_care_embeds_weights.data = torch.full((3,), _NEVER)
    concept = model.concept_embeds.data[0]

    def loss(step: int) -> Tensor:
        pixels, labels = _batch(step, autoencoder)
        embedding = model.visual_projection(model.vision_model(prepare(pixels)).pooler_output)
        cosine = functional.cosine_similarity(embedding, concept[None])
        return functional.binary_cross_entropy_with_logits((cosine - _FOUND) * _SHARPNESS, labels)

    learnt = [*model.vision_model.parameters(), *model.visual_projection.parameters()]
    run(_COURSE, learnt, loss, say)
    return model.eval()


def _batch(step: int, autoencoder: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Pictures, half of them of the forbidden shape as far as the draw allows, and whether they show it."""
    scenes = [scene(step * 4 * _BATCH + index)[0] for index in range(4 * _BATCH)]
    forbidden = [content for content in scenes if content.shape == FORBIDDEN][: _BATCH // 2]
    allowed = [content for content in scenes if content.shape != FORBIDDEN][: _BATCH - len(forbidden)]
    chosen = forbidden + allowed
    pixels = to_tensor(np.stack([picture(content) for content in chosen]))
    with torch.no_grad():
        again = autoencoder.decode(autoencoder.encode(pixels).latent_dist.sample()).sample
    pixels = torch.where((torch.rand(len(chosen)) < 0.5)[:, None, None, None], again, pixels)
    pixels = (pixels + 0.03 * torch.randn(pixels.shape)).clamp(-1, 1)
    return pixels, torch.tensor([float(content.shape == FORBIDDEN) for content in chosen])
