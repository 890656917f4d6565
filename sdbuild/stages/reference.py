"""The reference stage: what the original module answers to realistic inputs, computed once for all verifications.

Inputs: ``checkpoint``, the component's folder; for the UNet and ControlNets also ``scheduler`` and, where the recipe
has them, ``text_encoder``, ``tokenizer``, ``text_encoder_2`` and ``tokenizer_2``. Parameters: the component's
interface, ``precision``, ``samples`` and ``seed``. The result is ``samples.safetensors`` with, for each sample, its
inputs, the outputs of the original module (``exact``) and, for a half-precision build, the outputs of the original
module with its weights rounded to half (``rounded``): against those, a correct program is equal but for the last bits
of float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.stages import Stage

if TYPE_CHECKING:
    from sdbuild.models.samples import Scene

STAGE = Stage(
    name="reference",
    version=2,
    tools=("diffusers", "numpy", "torch", "transformers"),
    modules=("sdbuild.models",),
)

SAMPLES = "samples.safetensors"
PROMPTS = (
    "",
    "a photograph of an astronaut riding a horse on mars",
    "a watercolour of two red apples and a blue jug on a wooden table, soft morning light",
)
_RUN_ARGUMENTS = ("precision", "samples", "seed")


def run(
    inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Callable[[float, str], None]
) -> None:
    """Execute the original module on every sample."""
    import torch
    from safetensors.numpy import save_file

    from sdbuild.models.build import build
    from sdbuild.models.reference import reference
    from sdbuild.models.rounding import round_to_half
    from sdbuild.models.samples import samples, timesteps

    arguments = {key: value for key, value in params.items() if key not in _RUN_ARGUMENTS}
    component = build(checkpoint=inputs["checkpoint"], **arguments)
    scene = _scene(inputs, arguments)
    count = params["samples"]
    sets = samples(component.inputs, scene, steps=timesteps(count), seed=params["seed"])
    original = reference(arguments["component"], inputs["checkpoint"], family=arguments.get("family"))
    names = [spec.name for spec in component.outputs]
    arrays = {f"{index}/input/{name}": value for index, sample in enumerate(sets) for name, value in sample.items()}
    total = count * (2 if params["precision"] == "float16" else 1)
    done = 0
    for kind in ("exact", "rounded"):
        if kind == "rounded" and not (
            params["precision"] == "float16" and round_to_half(original.module, component.float32_modules)
        ):
            break
        for index, sample in enumerate(sets):
            progress(done / total, f"original module, {kind} weights, sample {index + 1} of {count}")
            tensors = [torch.from_numpy(sample[spec.name]) for spec in component.inputs]
            tensors = [tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors]
            with torch.inference_mode():
                outputs = original(*tensors)
            for name, value in zip(names, outputs, strict=True):
                arrays[f"{index}/{kind}/{name}"] = value.float().numpy()
            done += 1
    # One entry: safetensors writes several in an order that differs from process to process.
    save_file(arrays, out / SAMPLES, metadata={"reference": json.dumps({"outputs": names, "samples": count})})
    progress(1.0, f"{count} samples")


def _scene(inputs: Mapping[str, Path], arguments: Mapping[str, Any]) -> Scene:
    """What the checkpoint says of the component's surroundings."""
    import numpy as np

    from sdbuild.models.samples import Scene, training_schedule

    config = json.loads((inputs["checkpoint"] / "config.json").read_text(encoding="utf-8"))
    facts: dict[str, Any] = {}
    if "vocab_size" in config:
        facts["vocabulary"] = config["vocab_size"]
    if "scaling_factor" in config:
        facts["scaling_factor"] = config["scaling_factor"]
    if "scheduler" in inputs:
        schedule = json.loads((inputs["scheduler"] / "scheduler_config.json").read_text(encoding="utf-8"))
        facts["alphas_cumprod"] = training_schedule(schedule)
    encoders = [role for role in ("text_encoder", "text_encoder_2") if role in inputs]
    if encoders:
        family = "sdxl" if "text_encoder_2" in inputs else None
        answers = [_text_states(role, inputs, arguments["text_sequence_length"], family) for role in encoders]
        facts["text_states"] = np.concatenate([hidden for hidden, _ in answers], axis=2)
        facts["pooled"] = answers[-1][1]
    return Scene(**facts)


def _text_states(role: str, inputs: Mapping[str, Path], length: int, family: str | None) -> tuple[Any, Any]:
    """Hidden and pooled states of the prompts, by the checkpoint's own encoder and tokenizer."""
    import numpy as np
    import torch
    from transformers import CLIPTokenizer

    from sdbuild.models.reference import reference

    tokenizer = CLIPTokenizer.from_pretrained(inputs[role.replace("text_encoder", "tokenizer")])
    encoder = reference(role, inputs[role], family=family)
    hidden, pooled = [], []
    for prompt in PROMPTS:
        row = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
        with torch.inference_mode():
            states, pool = encoder(torch.tensor([row], dtype=torch.int32))
        hidden.append(states.numpy())
        pooled.append(pool.numpy())
    return np.concatenate(hidden), np.concatenate(pooled)
