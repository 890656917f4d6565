"""The reference stage: what the original module answers to realistic inputs, computed once for all verifications.

Inputs: ``checkpoint``, the component's folder; for the denoiser and ControlNets also ``scheduler`` and, where the
recipe has them, ``text_encoder``, ``text_encoder_2``, ``text_encoder_3`` and their tokenizers, and for a UNet whose
velocity becomes noise ``prediction``. Parameters: the component's interface, ``precision``, ``samples`` and ``seed``.
The result is ``samples.safetensors`` with, for each sample, its inputs, the outputs of the original module (``exact``)
and, for a half-precision build, the outputs of the original module with its weights rounded to half (``rounded``):
against those, a correct program is equal but for the last bits of float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Any, Literal

from sdbuild.components import NETWORKS
from sdbuild.stages import Stage
from sdbuild.stages.imports import hide, undisturbed
from sdbuild.stages.interface import Interface
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters(Interface):
    """What is run, and on how many inputs.

    Attributes:
        precision: of the build; half precision is also answered with rounded weights.
        samples: sets of inputs.
        seed: of the inputs.
    """

    _: KW_ONLY
    precision: Literal["float16", "float32"]
    samples: int
    seed: int


STAGE = Stage(
    name="reference",
    version=4,
    tools=("diffusers", "numpy", "torch", "transformers"),
    entry="sdbuild.stages.reference:run_alone",
    parameters=Parameters,
    title="the original model's answers, to compare {} with",
    group="run the original models on the inputs that packages are compared with",
    reads="the component's files, for denoisers also the text encoders'",
    result="realistic inputs and the original module's answers",
    follows=("source", "schedule", "fuse", "embed", "prediction"),
)

UNUSED = ("accelerate", "peft", "scipy")
SAMPLES = "samples.safetensors"


def run_alone(
    inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Callable[[float, str], None]
) -> None:
    """`run`, in a process that does nothing but this and ends with it."""
    hide(*UNUSED)
    with undisturbed():
        import sdbuild.models.rounding  # noqa: F401  # and with it torch, diffusers and transformers
    run(inputs, params, out, progress)


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Execute the original module on every sample."""
    import torch
    from safetensors.numpy import save_file

    from sdbuild.models.build import build
    from sdbuild.models.original import reference
    from sdbuild.models.rounding import round_to_half
    from sdbuild.models.samples import samples
    from sdbuild.models.scene import scene_of

    arguments = params.build_arguments()
    component = build(checkpoint=inputs["checkpoint"], **arguments)
    original, float32_modules = reference(checkpoint=inputs["checkpoint"], **arguments), component.float32_modules
    if "prediction" in inputs:
        from sdbuild.models.noise import original_noise, predict_noise

        component = predict_noise(component, inputs["prediction"])
        original = original_noise(original, inputs["prediction"])
    count = params.samples
    steps, scene = _steps(inputs, arguments["component"], count), scene_of(inputs, arguments)
    sets = samples(component.inputs, scene, steps=steps, seed=params.seed)
    names = [spec.name for spec in component.outputs]
    arrays = {f"{index}/input/{name}": value for index, sample in enumerate(sets) for name, value in sample.items()}
    total = count * (2 if params.precision == "float16" else 1)
    done = 0
    for kind in ("exact", "rounded"):
        if kind == "rounded" and not (
            params.precision == "float16" and round_to_half(original.module, float32_modules)
        ):
            break
        for index, sample in enumerate(sets):
            progress(done / total, f"original module, {kind} weights, sample {index + 1} of {count}")
            tensors = [torch.from_numpy(sample[spec.name]) for spec in component.inputs]
            tensors = [tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors]
            with torch.inference_mode():
                outputs = original(*tensors)
            for name, value in zip(names, outputs, strict=True):
                # safetensors writes the memory of a transposed array as it lies.
                arrays[f"{index}/{kind}/{name}"] = value.float().contiguous().numpy()
            done += 1
    # One entry: safetensors writes several in an order that differs from process to process.
    save_file(arrays, out / SAMPLES, metadata={"reference": json.dumps({"outputs": names, "samples": count})})
    progress(1.0, f"{count} samples")


def _steps(inputs: Mapping[str, Path], component: str, count: int) -> tuple[float, ...]:
    """The time steps of the samples, by the checkpoint's schedule where there is one."""
    from sdbuild.models.registry import function
    from sdbuild.models.scene import read_schedule

    schedule = read_schedule(inputs) if "scheduler" in inputs else {}
    steps: tuple[float, ...] = function(NETWORKS[component].time_steps)(schedule, count)
    return steps
