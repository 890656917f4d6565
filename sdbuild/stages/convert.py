"""The convert stage: one component of a checkpoint becomes a Core ML package.

Inputs: ``checkpoint``, the component's folder; for a UNet whose velocity becomes noise also ``prediction``. Parameters:
``component``, ``precision``, ``deployment_target``, for a Hub repository its name and revision as ``origin``, and the
arguments of `sdbuild.models.build.build` that concern the component. The result holds one package, named as in a
bundle, and ``modules.json``, which maps the program's operations to the torch modules that they came from.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Any, Literal

from sdbuild.components import NETWORKS
from sdbuild.interface.swift.files import PACKAGE, base_name
from sdbuild.stages import Stage
from sdbuild.stages.imports import hide
from sdbuild.stages.interface import Interface
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters(Interface):
    """What is converted, and to what.

    Attributes:
        precision: of weights and arithmetic.
        deployment_target: the oldest system that the package must run on.
        attention_implementation: how a denoiser's attention is written.
        origin: a Hub repository's name and revision, for the package's metadata.
    """

    _: KW_ONLY
    precision: Literal["float16", "float32"]
    deployment_target: str
    attention_implementation: str | None = None
    origin: str = ""

    def build_arguments(self) -> dict[str, Any]:
        """The arguments of `build`, with how attention is written."""
        attention = {"attention_implementation": self.attention_implementation}
        return super().build_arguments() | (attention if self.attention_implementation else {})


STAGE = Stage(
    name="convert",
    version=3,
    tools=("coremltools", "diffusers", "numpy", "torch"),
    entry="sdbuild.stages.convert:run_alone",
    parameters=Parameters,
    title="{} as a Core ML package",
    group="convert each component",
    reads="one component's files",
    result="an ML Program package; `modules.json`: operation → torch module",
    follows=("source", "fuse", "embed", "prediction", "account"),
)

UNUSED = ("accelerate", "peft", "scipy", "transformers")


def run_alone(
    inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Callable[[float, str], None]
) -> None:
    """`run`, in a process that does nothing but this and ends with it."""
    gc.disable()  # most of what is imported and built is kept, and searching it for garbage takes seconds
    hide(*UNUSED)
    run(inputs, params, out, progress)


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Convert one component.

    Raises:
        ModelError: the checkpoint cannot be built into a module.
        ConversionError: a weight does not fit the module or half precision.
    """
    from sdbuild.checkpoints.card import read_card
    from sdbuild.coreml.convert import convert
    from sdbuild.coreml.metadata import ModelMetadata
    from sdbuild.models.build import build

    arguments = params.build_arguments()
    model = build(checkpoint=inputs["checkpoint"], **arguments)
    if "prediction" in inputs:
        from sdbuild.models.noise import predict_noise

        model = predict_noise(model, inputs["prediction"])
    card = read_card(inputs["checkpoint"])
    network = NETWORKS[params.component]
    name = network.package or base_name(network.variant(arguments))
    convert(
        model.module,
        model.inputs,
        model.outputs,
        model.weights,
        out / f"{name}{PACKAGE}",
        precision=params.precision,
        deployment_target=params.deployment_target,
        float32_modules=model.float32_modules,
        metadata=ModelMetadata(
            author=params.origin.partition("/")[0] if params.origin else card.author,
            license=card.license,
            version=params.origin or card.version,
            description=network.title,
        ),
        progress=progress,
    )
