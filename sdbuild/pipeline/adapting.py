"""What T2I-Adapters make of their pictures, once for all steps and prompts."""

from __future__ import annotations

import numpy as np

from sdbuild.pipeline import pictures
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.condition import Floats
from sdbuild.pipeline.request import Request

_ROWS = 2  # of a condition: the unconditional and the conditional one, which have the same features


def features(bundle: OpenBundle, request: Request) -> dict[str, Floats]:
    """The adapters' weighted features, added up, as the UNet's inputs with a condition's two rows.

    Source: diffusers' MultiAdapter; https://huggingface.co/docs/diffusers/api/pipelines/stable_diffusion/adapter
    """
    height, width = bundle.image_size
    total: dict[str, Floats] = {}
    for (name, picture), weight in zip(request.adapter_images.items(), request.adapter_weights, strict=True):
        model = bundle.model(f"t2i_adapter/{name}")
        (port,) = model.inputs
        given = model.predict({port.name: pictures.to_unit(picture, height, width, port.shape[1])})
        for feature, values in given.items():
            weighted = values * np.float32(weight)
            total[feature] = total[feature] + weighted if feature in total else weighted
    return {feature: np.repeat(values, _ROWS, axis=0) for feature, values in total.items()}
