"""The safety checker as diffusers asks it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdbuild.pipeline import pictures
from sdbuild.pipeline.models import RunnableModel


def is_flagged(checker: RunnableModel, picture: Image.Image) -> bool:
    """The answer to the middle of the picture, normalised as CLIP was trained."""
    shapes = {feature.name: feature.shape for feature in checker.inputs}
    _, height, width, _ = shapes["images"]
    outputs = checker.predict(
        {
            "clip_input": pictures.to_clip(picture, shapes["clip_input"][-1]),
            "images": np.ascontiguousarray(pictures.to_unit(picture, height, width).transpose(0, 2, 3, 1)),
            "adjustment": np.zeros(shapes["adjustment"], np.float32),
        }
    )
    return bool(np.ravel(outputs["has_nsfw_concepts"])[0] > 0.5)
