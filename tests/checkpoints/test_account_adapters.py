"""What is said of LoRAs and of files of one network before anything is converted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from sdbuild.checkpoints.account import Account, Use
from sdbuild.checkpoints.account.sources import Asked, account_of
from sdbuild.checkpoints.pickle_header import pickle_header
from tests.checkpoints.adapters import random

UNET = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TOWER = "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"


def account(component: str, files: Mapping[str, Path], *components: str) -> Account:
    return account_of(Asked(component, "mine", components=components), files, read_pickle=pickle_header)


def names(found: Account, use: Use) -> dict[str, str]:
    return {entry.name: entry.reason for entry in found.of(use)}


def lora(folder: Path, **further: torch.Tensor) -> dict[str, Path]:
    tensors = {f"{module}.lora_{part}.weight": random(4, 4) for module in (UNET, TOWER) for part in "AB"}
    metadata = {"ss_network_dim": "4", "format": "pt", "sorcery": "yes", "lora_adapter_metadata": "{}"}
    save_file(tensors | further, folder / "adapter_model.safetensors", metadata)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}))
    return {path.name: path for path in folder.iterdir()}


def test_a_lora(tmp_path: Path) -> None:
    files = lora(tmp_path, **{"bundle_emb.toy.clip_l": random(1, 4)})
    found = account("lora", files, "unet", "text_encoder")
    used, warned, harmless = (names(found, use) for use in (Use.USED, Use.WARNED, Use.HARMLESS))
    assert {f"{UNET}.lora_A.weight", "r", "lora_alpha", "lora_adapter_metadata", *files} <= used.keys()
    assert warned == {
        f"{TOWER}.lora_A.weight": "is for text_encoder_2, which the recipe does not build",
        f"{TOWER}.lora_B.weight": "is for text_encoder_2, which the recipe does not build",
        "bundle_emb.toy.clip_l": "`toy` is a word of its own, trained along; name the same file under "
        "textual_inversions to use it",
        "sorcery": "is not known, and nothing reads it",
    }
    assert harmless.keys() == {"ss_network_dim", "format", "lora_dropout"}
    assert not found.refused


def test_a_lora_that_cannot_be_fused(tmp_path: Path) -> None:
    found = account("lora", lora(tmp_path, **{f"{UNET}.vera_lambda_b": random(2)}), "unet")
    (entry,) = found.refused
    assert entry.reason.startswith(f"VeRA ({UNET}.vera_lambda_b) cannot be fused")


def test_a_pickle_is_read_where_that_is_possible(tmp_path: Path) -> None:
    torch.save({f"{UNET}.lora_{part}.weight": random(4, 4) for part in "AB"}, tmp_path / "x.pt")
    files = {"x.pt": tmp_path / "x.pt"}
    assert len(account("lora", files, "unet").of(Use.USED)) == 3
    assert len(account_of(Asked("lora", "mine"), files).entries) == 1


def test_a_vae_out_of_a_whole_checkpoint(tmp_path: Path) -> None:
    tensors = {
        "first_stage_model.encoder.down.0.block.0.conv1.weight": random(2, 2, 3, 3),
        "first_stage_model.decoder.conv_in.weight": random(2, 2).to(torch.float8_e4m3fn),
        "first_stage_model.decoder.conv_in.scale_weight": torch.ones(()),
        "first_stage_model.decoder.conv_in.scale_input": torch.ones(()),
        "first_stage_model.loss.logvar": torch.ones(1),
        "first_stage_model.decoder.steps": torch.ones(1, dtype=torch.int32),
        "model.diffusion_model.out.2.bias": torch.ones(1),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"modelspec.title": "mine", "sorcery": "yes"})
    found = account("part:vae", {"x.safetensors": tmp_path / "x.safetensors"})
    used, warned, harmless = (names(found, use) for use in (Use.USED, Use.WARNED, Use.HARMLESS))
    assert used.keys() == {"x.safetensors", *list(tensors)[:3]}
    assert harmless.keys() == {"modelspec.title", *list(tensors)[3:5]}
    assert warned == {
        "model.diffusion_model.out.2.bias": "is none of the vae's, which alone is taken",
        "sorcery": "is not known",
    }
    assert names(found, Use.REFUSED).keys() == {"first_stage_model.decoder.steps"}


def test_a_file_of_another_network(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.out.2.bias": torch.ones(1)}, tmp_path / "x.safetensors")
    (entry,) = account("part:vae", {"x.safetensors": tmp_path / "x.safetensors"}).refused
    assert entry.reason.startswith("holds no vae in a layout that is known here; its names start with: model")
