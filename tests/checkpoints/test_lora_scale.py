"""What α, ranks and settings make of an adapter: the merged weights are those of peft and of diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import CLIPTextModel

from sdbuild.checkpoints.lora.files import LoraFilesError, lora_files
from sdbuild.models.errors import ModelError
from tests.checkpoints.adapters import Tensors, fused, random, save, weights

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYTHING = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "conv1", "conv2", "time_emb_proj"]
UNETS: dict[str, Any] = {
    "plain": LoraConfig(r=4, lora_alpha=12, target_modules=EVERYTHING),
    "rslora": LoraConfig(r=4, lora_alpha=12, use_rslora=True, target_modules=EVERYTHING),
    "patterns": LoraConfig(
        r=4,
        lora_alpha=3,
        target_modules=EVERYTHING,
        # Both match; the first counts.
        alpha_pattern={"attn1.to_q": 20, r"down_blocks.*to_q": 1, "conv1": 2},
        rank_pattern={"attn1.to_q": 2, "to_q": 8},
    ),
    "rslora-patterns": LoraConfig(
        r=4,
        lora_alpha=3,
        use_rslora=True,
        target_modules=ATTENTION,
        alpha_pattern={"to_k": 9},
        rank_pattern={"to_k": 2},
    ),
    "dora": LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=EVERYTHING),
    "bias": LoraConfig(r=4, lora_alpha=6, bias="lora_only", target_modules=EVERYTHING),
    "lora-bias": LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=["ff.net.2", "to_out.0", "conv1"]),
    "modules-to-save": LoraConfig(r=4, lora_alpha=6, target_modules=ATTENTION, modules_to_save=["conv_in", "conv_out"]),
    "loha": LoHaConfig(r=4, alpha=6, target_modules=EVERYTHING, alpha_pattern={"to_k": 2}),
    "loha-core": LoHaConfig(r=4, alpha=6, target_modules=["conv1", "to_q"], use_effective_conv2d=True),
    "lokr": LoKrConfig(r=2, alpha=6, target_modules=EVERYTHING),
    "lokr-core": LoKrConfig(r=2, alpha=6, target_modules=["conv1", "to_q"], use_effective_conv2d=True),
    "lokr-whole": LoKrConfig(r=64, alpha=6, target_modules=ATTENTION),
    "ia3": IA3Config(target_modules=["to_k", "to_v", "ff.net.2", "conv1"], feedforward_modules=["ff.net.2"]),
    "ia3-convolutions": IA3Config(target_modules=["conv1", "conv2"], feedforward_modules=["conv2"]),
}


def trained(model: torch.nn.Module, config: Any) -> Any:
    """An adapter on the model, with numbers that training could have left."""
    wrapped = get_peft_model(model, config)
    for index, (name, parameter) in enumerate(wrapped.named_parameters()):
        if parameter.requires_grad:
            noise = random(*parameter.shape, seed=index)
            magnitude = "magnitude" in name or "ia3" in name or "modules_to_save" in name or name.endswith("bias")
            parameter.data = parameter.data + noise if magnitude else noise
    return wrapped


def merged(wrapped: Any) -> Tensors:
    return {name: tensor.clone() for name, tensor in wrapped.merge_and_unload().state_dict().items()}


def bare(tensors: Tensors) -> Tensors:
    """Under names without a tower's prefix, which files have and transformers 5 drops in memory."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    return {name.removeprefix("text_model."): tensor for name, tensor in kept.items()}


@pytest.mark.parametrize("kind", UNETS)
def test_a_folder_that_peft_saved(kind: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    wrapped = trained(UNet2DConditionModel.from_pretrained(saved("unet")), UNETS[kind])
    wrapped.save_pretrained(tmp_path / "lora")
    (tmp_path / "lora" / "README.md").unlink(missing_ok=True)
    ours, theirs = fused(saved("unet"), "unet", tmp_path / "lora", tmp_path / "out"), merged(wrapped)
    before = weights(saved("unet"))
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=2e-5, atol=3e-6, msg=name)
    assert sum(not torch.equal(ours[name], before[name]) for name in ours) == sum(
        not torch.equal(theirs[name], before[name]) for name in ours
    )


@pytest.mark.parametrize("kind", ["plain", "dora", "patterns"])
def test_the_recipes_weight_is_pefts_scale(kind: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    wrapped = trained(UNet2DConditionModel.from_pretrained(saved("unet")), UNETS[kind])
    wrapped.save_pretrained(tmp_path / "lora")
    for module in wrapped.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(0.3)
    ours = fused(saved("unet"), "unet", tmp_path / "lora", tmp_path / "out", "0.3")
    for name, tensor in merged(wrapped).items():
        torch.testing.assert_close(ours[name], tensor, rtol=2e-5, atol=3e-6, msg=name)


def test_a_folder_for_each_component(saved: Callable[..., Path], tmp_path: Path) -> None:
    """As training scripts leave them, with a token embedding that was adapted too."""
    parts = {
        "unet": (UNet2DConditionModel.from_pretrained(saved("unet")), UNETS["rslora"]),
        "text_encoder": (
            CLIPTextModel.from_pretrained(saved("text_encoder")),
            LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "fc1", "token_embedding"]),
        ),
    }
    theirs = {}
    for component, (model, config) in parts.items():
        wrapped = trained(model, config)
        wrapped.save_pretrained(tmp_path / "lora" / component)
        theirs[component] = bare(merged(wrapped))
    artifact = tmp_path / "artifact"
    for name, path in lora_files(tmp_path / "lora").items():
        (artifact / name).parent.mkdir(parents=True, exist_ok=True)
        (artifact / name).write_bytes(path.read_bytes())
    for component in parts:
        ours = bare(fused(saved(component), component, artifact, tmp_path / f"out-{component}"))
        for name, tensor in theirs[component].items():
            torch.testing.assert_close(ours[name], tensor, rtol=2e-5, atol=3e-6, msg=name)


def test_dora_in_kohyas_dialect_is_that_of_peft(saved: Callable[..., Path], tmp_path: Path) -> None:
    """diffusers leaves the magnitudes out when it loads such a file, and says so."""
    wrapped = trained(UNet2DConditionModel.from_pretrained(saved("unet")), UNETS["dora"])
    tensors: Tensors = {}
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            module, _, part = name.removeprefix("base_model.model.").partition(".lora_")
            key = f"lora_unet_{module.replace('.', '_')}"
            value = parameter.detach().clone()
            if part.startswith("magnitude"):
                kernel = wrapped.get_submodule(name.partition(".lora_")[0]).weight.ndim - 2
                tensors[f"{key}.dora_scale"] = value.reshape(-1, 1, *[1] * kernel)
            else:
                tensors[f"{key}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = value
                tensors[f"{key}.alpha"] = torch.tensor(6.0)
    for module in wrapped.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(0.6)
    ours = fused(saved("unet"), "unet", save(tmp_path / "lora", tensors), tmp_path / "out", "0.6")
    for name, tensor in merged(wrapped).items():
        torch.testing.assert_close(ours[name], tensor, rtol=2e-5, atol=3e-6, msg=name)


def config_of(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another-rank": (lambda c: c.update(r=8), "says rank 8 for .*, whose tensors have rank 4"),
    "pissa": (lambda c: c.update(init_lora_weights="pissa"), "init_lora_weights is pissa, which takes a part out"),
    "adalora": (lambda c: c.update(peft_type="ADALORA"), "peft_type is ADALORA, which cannot be fused"),
    "unknown": (lambda c: c.update(use_sorcery=True), "says use_sorcery: true, and what that means"),
    "tokens": (lambda c: c.update(alora_invocation_tokens=[1]), r"says alora_invocation_tokens: \[1\]"),
    "dora-without": (lambda c: c.update(use_dora=True), "has no magnitude, and the settings say that DoRA is used"),
    "pattern": (lambda c: c.update(alpha_pattern={"(": 1}), "which is no pattern"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_settings_that_cannot_be_followed(fault: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    wrapped = trained(UNet2DConditionModel.from_pretrained(saved("unet")), UNETS["plain"])
    wrapped.save_pretrained(tmp_path / "lora")
    config_of(tmp_path / "lora", change)
    with pytest.raises(ModelError, match=f"adapter_config.json.*{message}|{message}"):
        fused(saved("unet"), "unet", tmp_path / "lora", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "adapter_config.json: is not JSON"), ("[]", "adapter_config.json: is no JSON object")]
)
def test_settings_that_cannot_be_read(text: str, message: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    folder = save(tmp_path / "lora", {f"{key}.lora_A.weight": random(4, 64), f"{key}.lora_B.weight": random(64, 4)})
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        fused(saved("unet"), "unet", folder, tmp_path / "out")


def test_two_different_scales_are_not_chosen_from(saved: Callable[..., Path], tmp_path: Path) -> None:
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{key}.lora_A.weight": random(4, 64), f"{key}.lora_B.weight": random(64, 4)}
    tensors[f"{key}.alpha"] = torch.tensor(4.0)
    said = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 8})}
    with pytest.raises(ModelError, match="α/r = 1 by its own tensor and 2 by the settings"):
        fused(saved("unet"), "unet", save(tmp_path / "lora", tensors, said), tmp_path / "out")


def test_a_module_in_two_dialects_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    module = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors: Tensors = {}
    for key, down, up in (
        (f"unet.{module}", "lora_A.weight", "lora_B.weight"),
        (f"lora_unet_{module.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
    ):
        tensors |= {f"{key}.{down}": random(4, 64), f"{key}.{up}": random(64, 4)}
    with pytest.raises(
        ModelError, match=f"lora_unet_.* and unet.{module} are both unet's|unet.{module} and lora_unet_"
    ):
        fused(saved("unet"), "unet", save(tmp_path / "lora", tensors), tmp_path / "out")


def test_which_files_a_folder_is(tmp_path: Path) -> None:
    tensors = {"unet.conv_in.lora_A.weight": random(1, 4), "unet.conv_in.lora_B.weight": random(4, 1)}
    alone = save(tmp_path / "alone", tensors, name="style")
    (alone / "adapter_config.json").write_text("{}")
    assert set(lora_files(alone / "style.safetensors")) == {"style.safetensors", "adapter_config.json"}
    # Settings in a folder of many are nobody's, but for the file that peft calls so.
    many = save(tmp_path / "many", tensors, name="style")
    save(many, tensors, name="adapter_model")
    (many / "adapter_config.json").write_text("{}")
    assert set(lora_files(many / "style.safetensors")) == {"style.safetensors"}
    assert set(lora_files(many / "adapter_model.safetensors")) == {"adapter_model.safetensors", "adapter_config.json"}
    assert set(lora_files(many)) == {"adapter_model.safetensors", "adapter_config.json"}
    with pytest.raises(LoraFilesError, match=r"alone: holds no LoRA: neither adapter_model.safetensors"):
        lora_files(alone)
    save(many, tensors, name="pytorch_lora_weights")
    with pytest.raises(LoraFilesError, match=r"holds adapter_model.safetensors and pytorch_lora_weights.safetensors"):
        lora_files(many)
