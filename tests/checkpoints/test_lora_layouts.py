"""Layouts of names: the same adapter under every name that programs write gives the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file

from sdbuild.models.errors import ModelError
from tests.checkpoints.adapters import Tensors, fused, random, save, weights

UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
ORIGINAL = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
TOWER = "text_model.encoder.layers.1.self_attn.q_proj"
R = 2


def flat(module: str) -> str:
    return module.replace(".", "_")


UNET_NAMES = {
    "diffusers": f"unet.{UNET}",
    "peft": f"base_model.model.{UNET}",
    "diffusers-peft": f"unet.base_model.model.{UNET}",
    "peft-diffusers": f"base_model.model.unet.{UNET}",
    "bare": UNET,
    "kohya": f"lora_unet_{flat(UNET)}",
    "onetrainer": f"lora_unet.{UNET}",
    "lycoris": f"lycoris_{flat(UNET)}",
    "kohya-original": f"lora_unet_{flat(ORIGINAL)}",
    "comfy": f"diffusion_model.{ORIGINAL}",
    "comfy-diffusers": f"diffusion_model.{UNET}",
    "checkpoint": f"model.diffusion_model.{ORIGINAL}",
    "open-initiative": f"unet.{ORIGINAL}",
    "processor": f"unet.{UNET.replace('.to_q', '.processor.to_q')}",
}
TOWER_NAMES = {
    "diffusers": f"text_encoder.{TOWER}",
    "diffusers-bare": f"text_encoder.{TOWER.removeprefix('text_model.')}",
    "peft": f"base_model.model.{TOWER}",
    "kohya": f"lora_te_{flat(TOWER)}",
    "kohya-xl": f"lora_te1_{flat(TOWER)}",
    "comfy": f"text_encoders.clip_l.transformer.{TOWER}",
    "comfy-short": f"text_encoders.clip_l.{TOWER}",
    "open-initiative": f"clip_l.{TOWER}",
    "bare": TOWER,
}


def pair(name: str, out: int, inner: int, seed: int = 0, style: str = "lora_A") -> Tensors:
    down, up = {"lora_A": ("lora_A", "lora_B"), "lora_down": ("lora_down", "lora_up")}[style]
    return {
        f"{name}.{down}.weight": random(R, inner, seed=seed),
        f"{name}.{up}.weight": random(out, R, seed=seed + 1),
    }


def difference(out: int, inner: int, seed: int = 0) -> torch.Tensor:
    parts = pair("x", out, inner, seed)
    return parts["x.lora_B.weight"] @ parts["x.lora_A.weight"]


@pytest.mark.parametrize("style", ["lora_A", "lora_down"])
@pytest.mark.parametrize("layout", UNET_NAMES)
def test_a_module_of_the_unet(layout: str, style: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    before = weights(saved("unet"))
    shape = before[f"{UNET}.weight"].shape
    lora = save(tmp_path / "lora", pair(UNET_NAMES[layout], *shape, style=style))
    ours = fused(saved("unet"), "unet", lora, tmp_path / "out")
    for name, tensor in before.items():
        expected = tensor + difference(*shape) if name == f"{UNET}.weight" else tensor
        torch.testing.assert_close(ours[name], expected, msg=name)


@pytest.mark.parametrize("layout", TOWER_NAMES)
def test_a_module_of_a_text_encoder(layout: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    before = weights(saved("text_encoder"))
    key = next(name for name in before if name.endswith(f"{TOWER.removeprefix('text_model.')}.weight"))
    lora = save(tmp_path / "lora", pair(TOWER_NAMES[layout], *before[key].shape))
    ours = fused(saved("text_encoder"), "text_encoder", lora, tmp_path / "out")
    for name, tensor in before.items():
        expected = tensor + difference(*tensor.shape) if name == key else tensor
        torch.testing.assert_close(ours[name], expected, msg=name)


@pytest.mark.parametrize(
    ("component", "prefix"),
    [
        ("text_encoder_2", "lora_te2_"),
        ("text_encoder_2", "text_encoder_2."),
        ("text_encoder_2", "text_encoders.clip_g.transformer."),
        ("text_encoder_2", "clip_g."),
    ],
)
def test_the_second_text_encoder(component: str, prefix: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("text_encoder", projected=True)
    before = weights(folder)
    module = flat(TOWER) if prefix.startswith("lora_") else TOWER
    lora = save(tmp_path / "lora", pair(prefix + module, 32, 32))
    ours = fused(folder, component, lora, tmp_path / "out")
    assert [name for name in ours if not torch.equal(ours[name], before[name])] == [f"{TOWER}.weight"]
    # The same file leaves the first one alone.
    assert fused(folder, "text_encoder", lora, tmp_path / "first").keys() == before.keys()


@pytest.mark.parametrize("prefix", ["lora_te3_", "text_encoder_3.", "text_encoders.t5xxl.transformer.", "t5."])
def test_t5(prefix: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    before = weights(saved("t5"))
    module = "encoder.block.1.layer.0.SelfAttention.q"
    name = flat(module) if prefix.startswith("lora_") else module
    lora = save(tmp_path / "lora", pair(prefix + name, *before[f"{module}.weight"].shape))
    ours = fused(saved("t5"), "text_encoder_3", lora, tmp_path / "out")
    assert [key for key in ours if not torch.equal(ours[key], before[key])] == [f"{module}.weight"]


def original_transformer(width: int = 32, layers: int = 2) -> Tensors:
    """A transformer of SD 3.5 medium in the layout of the original code, small."""
    sizes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 100, width),
        "x_embedder.proj.weight": (width, 16, 2, 2),
        "t_embedder.mlp.0.weight": (width, 256),
        "t_embedder.mlp.2.weight": (width, width),
        "context_embedder.weight": (width, 40),
        "y_embedder.mlp.0.weight": (width, 24),
        "y_embedder.mlp.2.weight": (width, width),
        "final_layer.linear.weight": (64, width),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
    }
    for index in range(layers):
        last = index == layers - 1
        for side in ("x_block", "context_block"):
            block = f"joint_blocks.{index}.{side}"
            dual = side == "x_block" and index == 0
            parts = 9 if dual else 2 if last and side == "context_block" else 6
            sizes[f"{block}.adaLN_modulation.1.weight"] = (parts * width, width)
            for attention in ("attn", "attn2") if dual else ("attn",):
                sizes[f"{block}.{attention}.qkv.weight"] = (3 * width, width)
                sizes |= {f"{block}.{attention}.ln_{letter}.weight": (16,) for letter in "qk"}
                if not (last and side == "context_block"):
                    sizes[f"{block}.{attention}.proj.weight"] = (width, width)
            if not (last and side == "context_block"):
                sizes[f"{block}.mlp.fc1.weight"] = (4 * width, width)
                sizes[f"{block}.mlp.fc2.weight"] = (width, 4 * width)
    tensors = {name: random(*shape, seed=index) for index, (name, shape) in enumerate(sizes.items())}
    for name, shape in sizes.items():
        if name.endswith(".weight") and ".ln_" not in name:
            tensors[name.removesuffix("weight") + "bias"] = random(shape[0], seed=len(name))
    return tensors


def converted(tensors: Tensors) -> Tensors:
    return convert_sd3_transformer_checkpoint_to_diffusers(dict(tensors))  # type: ignore[no-any-return]


@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model.", "model.diffusion_model.", ""])
def test_every_module_of_sd3s_original_code(prefix: str, tmp_path: Path) -> None:
    """What diffusers makes of the original weights, adapted in the original code's own places."""
    original = original_transformer()
    folder = tmp_path / "transformer"
    folder.mkdir()
    before = {name: tensor.contiguous() for name, tensor in converted(original).items()}
    save_file(before, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text("{}")
    tensors: Tensors = {}
    adapted = dict(original)
    for index, (name, weight) in enumerate(original.items()):
        module = name.removesuffix(".weight")
        if weight.ndim == 2:
            key = prefix + (flat(module) if prefix == "lora_unet_" else module)
            tensors |= pair(key, *weight.shape, seed=index)
            adapted[name] = weight + difference(*weight.shape, seed=index)
            tensors[f"{key}.diff_b"] = random(len(weight), seed=index)
            adapted[f"{module}.bias"] = adapted[f"{module}.bias"] + random(len(weight), seed=index)
    ours = fused(folder, "transformer", save(tmp_path / "lora", tensors), tmp_path / "out")
    for name, tensor in converted(adapted).items():
        torch.testing.assert_close(ours[name], tensor, msg=name)
    assert sum(not torch.equal(ours[name], before[name]) for name in ours) > 40


def test_a_rotation_of_fused_projections_turns_them_together(tmp_path: Path) -> None:
    """One whose blocks reach from queries into keys."""
    original = original_transformer()
    name = "joint_blocks.0.x_block.attn.qkv"
    blocks = random(2, 48, 48)
    skew = blocks - blocks.transpose(1, 2)
    turns = (torch.eye(48) + skew) @ torch.linalg.inv(torch.eye(48) - skew)
    turned = torch.einsum("bij,bif->bjf", turns, original[f"{name}.weight"].reshape(2, 48, -1)).reshape(96, -1)
    folder = tmp_path / "transformer"
    folder.mkdir()
    save_file(
        {key: t.contiguous() for key, t in converted(original).items()}, folder / "diffusion_pytorch_model.safetensors"
    )
    (folder / "config.json").write_text("{}")
    lora = save(tmp_path / "lora", {f"lora_unet_{flat(name)}.oft_blocks": blocks})
    ours = fused(folder, "transformer", lora, tmp_path / "out")
    for key, tensor in converted(original | {f"{name}.weight": turned}).items():
        torch.testing.assert_close(ours[key], tensor, msg=key)


@pytest.mark.parametrize(
    "prefix", ["transformer.", "base_model.model.", "lora_transformer_", "transformer.base_model.model.", ""]
)
def test_sd3_under_diffusers_names(prefix: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    before = weights(saved("transformer"))
    module = "transformer_blocks.1.attn.add_k_proj"
    key = prefix + (flat(module) if prefix == "lora_transformer_" else module)
    ours = fused(saved("transformer"), "transformer", save(tmp_path / "lora", pair(key, 32, 32)), tmp_path / "out")
    assert [name for name in ours if not torch.equal(ours[name], before[name])] == [f"{module}.weight"]
    torch.testing.assert_close(ours[f"{module}.weight"], before[f"{module}.weight"] + difference(32, 32))


def test_sd3_is_adapted_as_diffusers_does(saved: Callable[..., Path], tmp_path: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel.from_pretrained(saved("transformer"))
    before = weights(saved("transformer"))
    tensors: Tensors = {}
    for index, name in enumerate(before):
        if name.endswith((".to_q.weight", ".add_v_proj.weight", "ff.net.2.weight")):
            tensors |= pair(f"transformer.{name.removesuffix('.weight')}", *before[name].shape, seed=index)
    folder = save(tmp_path / "lora", tensors)
    parts: dict[str, Any] = dict.fromkeys(
        (
            "scheduler",
            "vae",
            "text_encoder",
            "tokenizer",
            "text_encoder_2",
            "tokenizer_2",
            "text_encoder_3",
            "tokenizer_3",
        )
    )
    pipe = StableDiffusion3Pipeline(transformer=transformer, **parts)
    pipe.load_lora_weights(folder, weight_name="mine.safetensors")
    pipe.fuse_lora(components=["transformer"], lora_scale=0.8)
    theirs = {name.replace(".base_layer", ""): value for name, value in pipe.transformer.state_dict().items()}
    ours = fused(saved("transformer"), "transformer", folder, tmp_path / "out", "0.8")
    for name in before:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)
    assert any(not torch.equal(ours[name], before[name]) for name in before)


def test_embeddings_that_travel_along_are_named(saved: Callable[..., Path], tmp_path: Path) -> None:
    from sdbuild.checkpoints.lora.file import Lora

    tensors = pair(UNET_NAMES["kohya"], 32, 32)
    tensors |= {"bundle_emb.my-toy.clip_l": random(2, 32), "bundle_emb.my.style.string_to_param.*": random(2, 32)}
    path = save(tmp_path / "lora", tensors) / "mine.safetensors"
    assert Lora({path.name: path}, 1.0, "mine").embeddings == {"my-toy", "my.style"}


UNKNOWN = {
    "unknown-prefix": (pair("net.layer3.q", 32, 32), "net.layer3.q has a layout of names that is not known here"),
    "flux": (pair("lora_unet_double_blocks_0_img_attn_qkv", 96, 32), "modules of Flux: .*trained for another family"),
    "wan": (pair("diffusion_model.blocks.0.self_attn.q", 32, 32), "modules of Wan: .*trained for another family"),
    "motion": (pair("unet.down_blocks.0.motion_modules.0.proj_in", 32, 32), "a motion module"),
    "no-adapter": ({"unet.conv_in.kernel": random(2)}, "unet.conv_in.kernel is nothing that a LoRA holds"),
    "doubled": (
        pair("unet." + UNET, 32, 32) | {f"unet.{UNET}.lora_A.style.weight": random(R, 32)},
        "are the same part of one module",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_layout_says_so(case: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    tensors, message = UNKNOWN[case]
    with pytest.raises(ModelError, match=message):
        fused(saved("unet"), "unet", save(tmp_path / "lora", tensors), tmp_path / "out")
