"""Text states before the last layers: as diffusers' pipelines take them, and as smaller configurations do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from sdbuild.families import Family
from sdbuild.models.build import build
from sdbuild.models.errors import ModelError
from sdbuild.models.original import reference


def states(folder: Path, component: str, family: Family, ids: torch.Tensor, skip: int) -> tuple[torch.Tensor, ...]:
    arguments: dict[str, Any] = {"text_sequence_length": ids.shape[1], "family": family}
    if skip:
        arguments["clip_skip"] = skip
    ours = build(component, folder, **arguments).materialise()(ids.int())
    theirs = reference(component, folder, **arguments)(ids)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    return ours  # type: ignore[no-any-return]


@pytest.mark.parametrize("skip", [0, 1])
def test_sd1(skip: int, checkpoints: Callable[[str], Path]) -> None:
    checkpoint = checkpoints("tiny-sd")
    pipe = StableDiffusionPipeline.from_pretrained(checkpoint, local_files_only=True)
    # The pipeline looks for the norm where transformers had it before version 5.
    object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    theirs, _ = pipe.encode_prompt("a red cat", "cpu", 1, False, clip_skip=skip or None)
    ids = pipe.tokenizer("a red cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    ours, _ = states(checkpoint / "text_encoder", "text_encoder", Family.SD1, ids, skip)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("skip", [0, 1])
def test_sdxl(skip: int, checkpoints: Callable[[str], Path]) -> None:
    checkpoint = checkpoints("tiny-sdxl")
    pipe = StableDiffusionXLPipeline.from_pretrained(checkpoint, local_files_only=True)
    theirs, _, pooled, _ = pipe.encode_prompt(
        "a red cat", device="cpu", do_classifier_free_guidance=False, clip_skip=skip or None
    )
    found = []
    for component, tokenizer in (("text_encoder", pipe.tokenizer), ("text_encoder_2", pipe.tokenizer_2)):
        ids = tokenizer("a red cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
        found.append(states(checkpoint / component, component, Family.SDXL, ids, skip))
    torch.testing.assert_close(torch.cat([ours for ours, _ in found], -1), theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1][1], pooled, rtol=1e-4, atol=1e-4)


def test_more_layers_than_there_are(saved: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="clip_skip is 4, and the encoder has 3 layers"):
        build("text_encoder", saved("text_encoder"), clip_skip=4)


def test_a_configuration_of_fewer_layers_than_the_file(saved: Callable[..., Path], tmp_path: Path) -> None:
    """Another way to skip: transformers builds the first layers and leaves the rest of the file out."""
    folder = tmp_path / "text_encoder"
    shutil.copytree(saved("text_encoder"), folder)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "model.safetensors"
    save_file(
        load_file(path) | {"position_ids": torch.arange(77, dtype=torch.int32)[None], "unused": torch.ones(2)}, path
    )
    ids = torch.arange(77)[None] % 90
    ours, _ = states(folder, "text_encoder", Family.SD1, ids, 0)
    theirs = CLIPTextModel.from_pretrained(folder)(ids).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
