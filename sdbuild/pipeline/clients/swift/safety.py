"""The safety checker as the Swift package asks it.

Source: SafetyChecker.swift of apple/ml-stable-diffusion at e12202c.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdbuild.pipeline import pictures
from sdbuild.pipeline.models import RunnableModel

SAFETY_PICTURE = (1, 512, 512, 3)
"""The shape of the `images` that it is fed, whatever the picture; nothing is in them."""


def is_flagged(checker: RunnableModel, picture: Image.Image) -> bool:
    """The answer to the whole picture, stretched to a square and normalised as ImageNet's are."""
    shapes = {feature.name: feature.shape for feature in checker.inputs}
    outputs = checker.predict(
        {
            "clip_input": pictures.to_imagenet(picture, *shapes["clip_input"][2:]),
            "images": np.zeros(SAFETY_PICTURE, np.float32),
            "adjustment": np.zeros(1, np.float32),
        }
    )
    return bool(np.ravel(outputs["has_nsfw_concepts"])[0])
