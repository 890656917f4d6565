"""A single file with a LoRA, through the real program: taken apart, fused, converted and compared with the original."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sdbuild.builtin.tiny.tokenizer import VOCABULARY_SIZE
from tests.e2e.program import PHONE, Workspace
from tests.models import ldm

LAYER = "text_model.encoder.layers.0.self_attn.q_proj"


def write_checkpoint(path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, shape in ldm.tensors(replace(ldm.TINY_SD1, vocabulary=VOCABULARY_SIZE)).items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values /= torch.tensor(shape[1:]).prod() ** 0.5
        else:
            values = 0.1 * values + float(name.endswith("weight"))
        tensors[name] = values.half()
    save_file(tensors, path)


def test_a_single_file_with_a_lora_is_built_and_verified(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work", tmp_path / "cache")
    workspace.folder.mkdir()
    write_checkpoint(workspace.folder / "mine.safetensors")
    key = f"lora_te_{LAYER.replace('.', '_')}"
    lora = {f"{key}.lora_down.weight": torch.full((1, 64), 0.1), f"{key}.lora_up.weight": torch.full((64, 1), 0.2)}
    save_file(lora, workspace.folder / "lora.safetensors")
    workspace.recipe(
        PHONE,
        model="{version: ../mine.safetensors}",
        tokenizer='{version: "builtin:tiny-sd"}',
        loras="[{version: ../lora.safetensors, weight: 0.5}]",
    )
    ran = workspace("recipe=phone", "verify:convert-text_encoder", "source:vae", "fuse:unet")
    assert ran.status == 0, ran.err
    original = load_file(workspace.folder / "mine.safetensors")[f"cond_stage_model.transformer.{LAYER}.weight"]
    fused = load_file(workspace.blob("phone/fuse:text_encoder", "model.safetensors"))[f"{LAYER}.weight"]
    torch.testing.assert_close(fused, (original.double() + 0.5 * 0.1 * 0.2).half())
    # The LoRA has nothing for the UNet, whose files stay as they were.
    unet = [workspace.blob(f"phone/{task}:unet", "diffusion_pytorch_model.safetensors") for task in ("source", "fuse")]
    assert unet[0].samefile(unet[1])
    assert workspace("recipe=phone", "verify:convert-text_encoder").executed == []
