"""The convert stage: one component of a checkpoint becomes a Core ML package.

Inputs: ``checkpoint``, the component's folder; for a UNet whose velocity becomes noise also ``prediction``. Parameters:
``component``, ``precision``, ``deployment_target``, for a Hub repository its name and revision as ``origin``, and the
arguments of `sdbuild.models.build.build` that concern the component. The result holds one package, named as in a
bundle, and ``modules.json``, which maps the program's operations to the torch modules that they came from.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.components import NETWORKS
from sdbuild.interface.swift.files import PACKAGE, base_name
from sdbuild.stages import Stage
from sdbuild.stages.imports import hide

STAGE = Stage(
    name="convert",
    version=3,
    tools=("coremltools", "diffusers", "numpy", "torch"),
    entry="sdbuild.stages.convert:run_alone",
)

UNUSED = ("accelerate", "peft", "scipy", "transformers")

# Parameters that are not arguments of `build`.
_OWN = ("deployment_target", "origin", "precision")


def run_alone(
    inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Callable[[float, str], None]
) -> None:
    """`run`, in a process that does nothing but this and ends with it."""
    gc.disable()  # most of what is imported and built is kept, and searching it for garbage takes seconds
    hide(*UNUSED)
    run(inputs, params, out, progress)


def run(
    inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Callable[[float, str], None]
) -> None:
    """Convert one component.

    Raises:
        ModelError: the checkpoint cannot be built into a module.
        ConversionError: a weight does not fit the module or half precision.
    """
    from sdbuild.checkpoints.card import read_card
    from sdbuild.coreml.convert import convert
    from sdbuild.coreml.metadata import ModelMetadata
    from sdbuild.models.build import build

    arguments = {key: value for key, value in params.items() if key not in _OWN}
    model = build(checkpoint=inputs["checkpoint"], **arguments)
    if "prediction" in inputs:
        from sdbuild.models.noise import predict_noise

        model = predict_noise(model, inputs["prediction"])
    card = read_card(inputs["checkpoint"])
    origin = params.get("origin", "")
    network = NETWORKS[params["component"]]
    name = network.package or base_name(network.variant(params))
    convert(
        model.module,
        model.inputs,
        model.outputs,
        model.weights,
        out / f"{name}{PACKAGE}",
        precision=params["precision"],
        deployment_target=params["deployment_target"],
        float32_modules=model.float32_modules,
        metadata=ModelMetadata(
            author=origin.partition("/")[0] if origin else card.author,
            license=card.license,
            version=origin or card.version,
            description=network.title,
        ),
        progress=progress,
    )
