"""The safety checker: CLIP's vision tower, and concepts in its embedding space, of which one is a shape.

The architecture and its arithmetic are those of SD 1.x: a concept is found when the cosine between a picture's
embedding and the concept's exceeds the concept's threshold. The tower learns to tell all shapes apart, each a direction
of its own in the embedding space, because one shape against the rest teaches a small transformer next to nothing; the
forbidden shape's direction becomes the first concept. The others have thresholds that no cosine exceeds.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig

from sdbuild.builtin.tiny.configs import FEATURE_EXTRACTOR
from sdbuild.shapes.drawing import picture
from sdbuild.shapes.scenes import FORBIDDEN, SHAPES
from sdbuild.shapes.training.data import legible_scenes, to_pictures, to_tensor
from sdbuild.shapes.training.loop import Course, Say, run

_COURSE = Course("safety checker", steps=4000, rate=1.5e-3, warm=0.1)
_PICTURES = 8000
_BATCH = 48
_SEED = 5
_SIDE = FEATURE_EXTRACTOR["size"]["shortest_edge"]
_EMBEDDING = 32
_FOUND, _NEVER = 0.5, 1.1
_SHARPNESS = 12.0
_NOISE = 0.03


def make() -> StableDiffusionSafetyChecker:
    """The untrained checker: patches of 28 pixels, which are the autoencoder's 8 in a picture of 64."""
    vision = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": _SIDE,
        "patch_size": 28,
        "projection_dim": _EMBEDDING,
    }
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    return StableDiffusionSafetyChecker(CLIPConfig(text_config=text, vision_config=vision, projection_dim=_EMBEDDING))


def prepare(pixels: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [-1, 1] as CLIP wants them: (N, 3, 224, 224), normalised."""
    large = functional.interpolate(pixels, (_SIDE, _SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
    mean, spread = (torch.tensor(FEATURE_EXTRACTOR[name]).reshape(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    return (large / 2 + 0.5 - mean) / spread


def train(autoencoder: AutoencoderKL, say: Say) -> StableDiffusionSafetyChecker:
    """Train from scratch on pictures, half of them as the autoencoder gives them back, with some noise."""
    torch.manual_seed(_SEED)
    generator = torch.Generator().manual_seed(_SEED)
    model = make()
    directions = torch.linalg.qr(torch.randn(_EMBEDDING, len(SHAPES), generator=generator)).Q.T
    pictures, labels = _examples(autoencoder)

    def loss(_: int) -> Tensor:
        rows = torch.randint(len(pictures), (_BATCH,), generator=generator)
        pixels = to_tensor(pictures[rows].numpy())
        pixels = (pixels + _NOISE * torch.randn(pixels.shape, generator=generator)).clamp(-1, 1)
        embedding = model.visual_projection(model.vision_model(prepare(pixels)).pooler_output)
        cosines = functional.normalize(embedding, dim=1) @ directions.T
        return functional.cross_entropy(_SHARPNESS * cosines, labels[rows])

    learnt = [*model.vision_model.parameters(), *model.visual_projection.parameters()]
    run(_COURSE, learnt, loss, say)
    return _with_concepts(model, directions[SHAPES.index(FORBIDDEN)], generator).eval()


def _with_concepts(
    model: StableDiffusionSafetyChecker, forbidden: Tensor, generator: torch.Generator
) -> StableDiffusionSafetyChecker:
    """SD 1.x's 17 concepts and 3 special ones, of which the first is the forbidden shape."""
    model.concept_embeds.data = torch.randn(17, _EMBEDDING, generator=generator)
    model.concept_embeds.data[0] = forbidden
    model.concept_embeds_weights.data = torch.full((17,), _NEVER)
    model.concept_embeds_weights.data[0] = _FOUND
    model.special_care_embeds.data = torch.randn(3, _EMBEDDING, generator=generator)
    model.special_care_embeds_weights.data = torch.full((3,), _NEVER)
    return model


@torch.no_grad()
def _examples(autoencoder: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Pictures (N, 64, 64, 3) of 8 bits, every other one as the autoencoder gives it back, and their shapes (N,)."""
    scenes = [content for content, _ in islice(legible_scenes(), _PICTURES)]
    drawn = np.stack([picture(content) for content in scenes])
    for start in range(0, _PICTURES, 128):
        pixels = to_tensor(drawn[start : start + 128 : 2])
        again = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean).sample
        drawn[start : start + 128 : 2] = to_pictures(again)
    return torch.from_numpy(drawn), torch.tensor([SHAPES.index(content.shape) for content in scenes])
