"""The safety checker: CLIP's vision tower, and the distance of an image to fixed concepts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdbuild.checkpoints.checkpoint import Checkpoint, ConstantWeight
from sdbuild.families.family import PIXELS
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.clip import CLIPEncoder
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec

# transformers' defaults, for the fields that a config.json may leave out.
_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12} | {
    "image_size": 224,
    "num_channels": 3,
    "patch_size": 32,
}

# How much a concept's threshold drops once one of the special concepts is found: the original's figure.
_SPECIAL_CARE = 0.01

_CONCEPTS = ("concept_embeds", "special_care_embeds")

# In checkpoints, but not parameters of the vision tower.
_IGNORED = ("position_ids", "logit_scale")


class VisionEmbeddings(nn.Module):
    """Patches, one class token before them, and positions."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.patch_embedding = nn.Conv2d(config["num_channels"], width, patch, stride=patch, bias=False)
        positions = (config["image_size"] // patch) ** 2 + 1
        self.position_embedding = nn.ParameterDict({"weight": torch.empty(1, positions, width)})

    def forward(self, pixels: Tensor) -> Tensor:
        """(1, 3, S, S) → (1, patches + 1, D)."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        embedded: Tensor = torch.cat([self.class_embedding, patches], dim=1) + self.position_embedding["weight"]
        return embedded


class VisionTower(nn.Module):
    """transformers' `CLIPVisionModel`; `pre_layrnorm` is its spelling."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-5)
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps=epsilon)
        self.encoder = CLIPEncoder(config)
        self.post_layernorm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, pixels: Tensor) -> Tensor:
        """(1, 3, S, S) → the class token's last state (1, D)."""
        _, hidden = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        pooled: Tensor = self.post_layernorm(hidden[:, 0])
        return pooled


class SafetyChecker(nn.Module):
    """diffusers' `StableDiffusionSafetyChecker`, without its loops and without writing into its input.

    The concepts' embeddings are stored normalised.
    """

    def __init__(self, config: Mapping[str, Any], projection: int, concepts: int, special: int) -> None:
        super().__init__()
        self.vision_model = VisionTower(config)
        self.visual_projection = nn.Linear(config["hidden_size"], projection, bias=False)
        self.concept_embeds = nn.Parameter(torch.empty(concepts, projection))
        self.special_care_embeds = nn.Parameter(torch.empty(special, projection))
        self.concept_embeds_weights = nn.Parameter(torch.empty(1, concepts))
        self.special_care_embeds_weights = nn.Parameter(torch.empty(1, special))

    def forward(self, clip_input: Tensor, images: Tensor, adjustment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 3, S, S), (1, H, W, 3), (1,) → images (black if unsafe), 1 or 0 (1,), scores (1, concepts)."""
        embedding = self.visual_projection(self.vision_model(clip_input))
        embedding = embedding / torch.linalg.vector_norm(embedding, dim=1, keepdim=True)
        special_scores = (
            functional.linear(embedding, self.special_care_embeds) - self.special_care_embeds_weights + adjustment
        )
        concept_scores = functional.linear(embedding, self.concept_embeds) - self.concept_embeds_weights + adjustment
        concept_scores = concept_scores + _SPECIAL_CARE * _any_positive(special_scores)
        unsafe = _any_positive(concept_scores)
        return images * (1 - unsafe).reshape(1, 1, 1, 1), unsafe.reshape(1), concept_scores


def _any_positive(scores: Tensor) -> Tensor:
    """(1, N) → (1, 1): 1 where any score is above 0, else 0."""
    return (scores > 0).to(torch.float32).amax(1, keepdim=True)


def build_safety_checker(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The safety checker of `checkpoint`, for images of any size."""
    raw = read_config(checkpoint, "StableDiffusionSafetyChecker")
    # Configurations of before transformers 4.30 hold the towers' differences from the defaults in `*_config_dict`.
    given = {**(raw.get("vision_config_dict") or {}), **(raw.get("vision_config") or {})}
    config = _DEFAULTS | {key: value for key, value in given.items() if value is not None}
    weights = Checkpoint.open(checkpoint)
    concepts = {name: _normalised(name, weights) for name in _CONCEPTS if name in weights}
    counts = [concepts[name].shape[0] if name in concepts else 0 for name in _CONCEPTS]
    with torch.device("meta"):
        module = SafetyChecker(config, raw.get("projection_dim", 512), *counts).eval().requires_grad_(False)
    size = config["image_size"]
    images = (1, PIXELS * arguments.latent_height, PIXELS * arguments.latent_width, 3)
    return ComponentModel(
        component=component,
        module=module,
        inputs=(
            TensorSpec(
                "clip_input",
                (1, config["num_channels"], size, size),
                "float16",
                f"The image scaled to {size} by {size} and normalised as CLIP wants it.",
            ),
            TensorSpec("images", images, "float16", "The decoder's image, channels last."),
            TensorSpec(
                "adjustment", (1,), "float16", "Added to every score: above 0 the checker finds more, and errs more."
            ),
        ),
        outputs=(
            TensorSpec("filtered_images", images, "float32", "The images, or black where a concept was found."),
            TensorSpec("has_nsfw_concepts", (1,), "float32", "1 if a concept was found, else 0."),
            TensorSpec("concept_scores", (1, counts[0]), "float32", "Above 0 for each concept that was found."),
        ),
        weights=map_weights(module, weights, _rename, concepts),
    )


def _normalised(name: str, weights: Mapping[str, Any]) -> ConstantWeight:
    values = np.asarray(weights[name].read(), np.float32)
    return ConstantWeight(name, values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


def _rename(name: str) -> str | None:
    """The parameter's name: before transformers 5 the tower was one level deeper."""
    if name.endswith(_IGNORED):
        return None
    return name.replace("vision_model.vision_model.", "vision_model.", 1)
