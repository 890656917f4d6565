"""What surrounds a component in its pipeline, computed with the checkpoint's own text encoders and schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.components import TOKENIZERS
from sdbuild.documents import read_json
from sdbuild.families import Family, of_components
from sdbuild.models.registry import function, registered
from sdbuild.models.samples import Scene, training_schedule

PROMPTS = (
    "",
    "a photograph of an astronaut riding a horse on mars",
    "a watercolour of two red apples and a blue jug on a wooden table, soft morning light",
)
_CLIP = ("text_encoder", "text_encoder_2")
_T5 = "text_encoder_3"
_T5_PADDING, _T5_END = 0, 1

Floats = NDArray[np.float32]


def scene_of(inputs: Mapping[str, Path], arguments: Mapping[str, Any]) -> Scene:
    """What the checkpoint says of the component's surroundings.

    Args:
        inputs: the stage's: `checkpoint`, `scheduler`, text encoders and tokenizers by role.
        arguments: the component's interface.
    """
    # A multilingual projection is a TorchScript module, which has none.
    path = inputs["checkpoint"] / "config.json"
    config = read_json(path) if path.is_file() else {}
    facts: dict[str, Any] = {"t5": arguments["component"] == _T5}
    for field, name in (("vocab_size", "vocabulary"), ("scaling_factor",) * 2, ("shift_factor",) * 2):
        if config.get(field) is not None:
            facts[name] = config[field]
    if new := config.get("added_tokens"):
        facts |= {"vocabulary": config["vocab_size"] - new, "new_tokens": new}
    if "scheduler" in inputs:
        facts["alphas_cumprod"] = training_schedule(read_schedule(inputs))
    states = function(registered(arguments["component"]).text_states)
    facts["text_states"], facts["pooled"] = states(inputs, arguments, config)
    return Scene(**facts)


def read_schedule(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """The checkpoint's `scheduler_config.json`."""
    configuration: dict[str, Any] = read_json(inputs["scheduler"] / "scheduler_config.json")
    return configuration


def clip_states(
    inputs: Mapping[str, Path], arguments: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[Floats, Floats] | tuple[None, None]:
    """A UNet's text states, (prompts, L, width), CLIP's encoders side by side, and the last one's pooled states.

    None where the recipe has no text encoder.
    """
    encoders = [role for role in _CLIP if role in inputs]
    if not encoders:
        return None, None
    family = of_components(encoders)
    answers = [_clip_states(role, inputs, arguments["text_sequence_length"], family) for role in encoders]
    return np.concatenate([hidden for hidden, _ in answers], axis=2), answers[-1][1]


def clip_and_t5_states(
    inputs: Mapping[str, Path], arguments: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[Floats, Floats] | tuple[None, None]:
    """Stable Diffusion 3's text states, (prompts, 2 L, width), and pooled states.

    CLIP's side by side and filled up with zeros, then T5's, or zeros without T5, as the Swift package feeds them. None
    where the recipe lacks one of both CLIP encoders.
    """
    if not all(role in inputs for role in _CLIP):
        return None, None
    length, width = arguments["text_sequence_length"], config["joint_attention_dim"]
    answers = [_clip_states(role, inputs, length, Family.SD3) for role in _CLIP]
    clip = np.concatenate([hidden for hidden, _ in answers], axis=2)
    clip = np.pad(clip, ((0, 0), (0, 0), (0, width - clip.shape[2])))
    t5 = np.concatenate(list(_t5_states(inputs, length))) if _T5 in inputs else np.zeros_like(clip)
    pooled = np.concatenate([state for _, state in answers], axis=1)
    return np.concatenate([clip, t5], axis=1), pooled


def _clip_states(role: str, inputs: Mapping[str, Path], length: int, family: Family | None) -> tuple[Floats, Floats]:
    """Hidden and pooled states of the prompts, by the checkpoint's own encoder and tokenizer."""
    import torch
    from transformers import CLIPTokenizer

    from sdbuild.models.original import reference

    tokenizer = CLIPTokenizer.from_pretrained(inputs[TOKENIZERS[role]])
    encoder = reference(role, inputs[role], family=family)
    hidden, pooled = [], []
    for prompt in PROMPTS:
        row = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
        with torch.inference_mode():
            states, pool = encoder(torch.tensor([row], dtype=torch.int32))
        hidden.append(states.numpy())
        pooled.append(pool.numpy())
    return np.concatenate(hidden), np.concatenate(pooled)


def _t5_states(inputs: Mapping[str, Path], length: int) -> Iterator[Floats]:
    """The same of T5, (1, L, width) a prompt, with padding masked."""
    import torch
    from tokenizers import Tokenizer

    from sdbuild.models.original import reference

    tokenizer = Tokenizer.from_file(str(inputs[TOKENIZERS[_T5]] / "tokenizer.json"))
    encoder = reference(_T5, inputs[_T5])
    for prompt in PROMPTS:
        words = tokenizer.encode(prompt, add_special_tokens=False).ids[: length - 1]
        row = torch.tensor([[*words, _T5_END, *[_T5_PADDING] * (length - 1 - len(words))]], dtype=torch.int32)
        with torch.inference_mode():
            (states,) = encoder(row, (row == _T5_PADDING).float())
        yield states.squeeze(2).transpose(1, 2).numpy()
