"""LoRAs in the dialects of their trainers: the fused weights are those of diffusers with the same files loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from sdbuild.models.errors import ModelError
from sdbuild.stages import fuse

Tensors = dict[str, torch.Tensor]
RANK = 4
COMPONENTS = {"tiny-sd": ("unet", "text_encoder"), "tiny-sdxl": ("unet", "text_encoder", "text_encoder_2")}
TARGETS = {
    "unet": r".*(attn[12]\.to_[qkv]|attn[12]\.to_out\.0|ff\.net\.[02](\.proj)?|proj_(in|out))",
    "text_encoder": r".*(self_attn\.[qkv]_proj|self_attn\.out_proj|mlp\.fc[12])",
}
CONVOLUTIONS = r".*resnets\.\d\.(conv[12]|conv_shortcut|time_emb_proj)|.*samplers\.0\.conv"


def weights(checkpoint: Path, component: str) -> Tensors:
    (file,) = (checkpoint / component).glob("*.safetensors")
    return load_file(file)


def pairs(
    checkpoint: Path, component: str, pattern: str, seed: int = 0
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Module → down and up, for each module of the component that the pattern names."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in weights(checkpoint, component).items():
        module = name.removesuffix(".weight")
        if module != name and re.fullmatch(pattern, module):
            out, inner, *kernel = tensor.shape
            down = torch.randn(RANK, inner, *kernel, generator=generator) * 0.1
            up = torch.randn(out, RANK, *[1 for _ in kernel], generator=generator) * 0.1
            found[module] = (down, up)
    assert found
    return found


def pattern_of(component: str) -> str:
    return TARGETS["unet" if component == "unet" else "text_encoder"]


def peft(checkpoint: Path, components: tuple[str, ...]) -> tuple[Tensors, dict[str, str]]:
    tensors: Tensors = {}
    for component in components:
        for module, (down, up) in pairs(checkpoint, component, pattern_of(component)).items():
            tensors[f"{component}.{module}.lora_A.weight"] = down
            tensors[f"{component}.{module}.lora_B.weight"] = up
    return tensors, {}


def peft_with_settings(checkpoint: Path, components: tuple[str, ...]) -> tuple[Tensors, dict[str, str]]:
    tensors, _ = peft(checkpoint, components)
    flat: dict[str, Any] = {}
    for component in components:
        flat |= {f"{component}.r": RANK, f"{component}.lora_alpha": 2}
        modules = pairs(checkpoint, component, pattern_of(component))
        flat[f"{component}.target_modules"] = [module.removeprefix("text_model.") for module in modules]
    return tensors, {"lora_adapter_metadata": json.dumps(flat)}


def linear_layers(checkpoint: Path, components: tuple[str, ...]) -> tuple[Tensors, dict[str, str]]:
    """What diffusers wrote before peft."""
    tensors: Tensors = {}
    for component in components:
        pattern = r".*attn[12]\.to_[qkv]" if component == "unet" else r".*self_attn\.[qkv]_proj"
        for module, (down, up) in pairs(checkpoint, component, pattern).items():
            name = f"{component}.{module}.lora" if component == "unet" else f"{component}.{module}.lora_linear_layer"
            tensors[f"{name}.down.weight"], tensors[f"{name}.up.weight"] = down, up
    return tensors, {}


def processors(checkpoint: Path, components: tuple[str, ...]) -> tuple[Tensors, dict[str, str]]:
    """What diffusers wrote first: attention processors of the UNet alone."""
    tensors: Tensors = {}
    for module, (down, up) in pairs(checkpoint, "unet", r".*attn[12]\.(to_[qkv]|to_out\.0)").items():
        block, _, name = module.removesuffix(".0").rpartition(".")
        for kind, tensor in (("down", down), ("up", up)):
            tensors[f"unet.{block}.processor.{name}_lora.{kind}.weight"] = tensor
    return tensors, {}


KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}


def kohya(checkpoint: Path, components: tuple[str, ...], convolutions: bool = False) -> tuple[Tensors, dict[str, str]]:
    tensors: Tensors = {}
    for component in components:
        prefix = "lora_te1_" if (component, len(components)) == ("text_encoder", 3) else KOHYA[component]
        pattern = pattern_of(component)
        if convolutions and component == "unet":
            pattern = f"{pattern}|{CONVOLUTIONS}"
        for module, (down, up) in pairs(checkpoint, component, pattern).items():
            name = prefix + module.replace(".", "_")
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
            tensors[f"{name}.alpha"] = torch.tensor(2.0)
    return tensors, {}


def locon(checkpoint: Path, components: tuple[str, ...]) -> tuple[Tensors, dict[str, str]]:
    return kohya(checkpoint, components, convolutions=True)


def original_blocks(checkpoint: Path, components: tuple[str, ...]) -> tuple[Tensors, dict[str, str]]:
    """Kohya's files for SDXL: the UNet's blocks under the names of the original code."""
    tensors, _ = kohya(checkpoint, components)
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        match = re.match(r"lora_unet_(down|up)_blocks_(\d)_attentions_(\d)_(.*)", name)
        if match:
            level, layer = int(match[2]), int(match[3])
            number = level * 2 + layer  # one residual block a level, and a sampler or one more
            side = f"input_blocks_{number + 1}" if match[1] == "down" else f"output_blocks_{number}"
            name = f"lora_unet_{side}_1_{match[4]}"
        renamed[name.replace("mid_block_attentions_0", "middle_block_1")] = tensor
    assert any("output_blocks" in name for name in renamed)
    return renamed, {}


DIALECTS = {
    "peft": ("tiny-sd", peft),
    "peft-xl": ("tiny-sdxl", peft),
    "settings": ("tiny-sd", peft_with_settings),
    "linear": ("tiny-sd", linear_layers),
    "processors": ("tiny-sd", processors),
    "kohya": ("tiny-sd", kohya),
    "kohya-xl": ("tiny-sdxl", kohya),
    "original": ("tiny-sdxl", original_blocks),
    "locon": ("tiny-sd", locon),
}


def save(folder: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "mine.safetensors", metadata)
    return folder


def fused(checkpoint: Path, component: str, loras: Mapping[str, tuple[Path, str]], out: Path) -> Tensors:
    out.mkdir()
    inputs = {"checkpoint": checkpoint / component} | {role: folder for role, (folder, _) in loras.items()}
    parameters = {"component": component, "weights": {role: weight for role, (_, weight) in loras.items()}}
    fuse.run(inputs, parameters, out, lambda _, __: None)
    (file,) = out.glob("*.safetensors")
    return load_file(file)


def pipeline(name: str, checkpoint: Path) -> Any:
    kind = StableDiffusionXLPipeline if "xl" in name else StableDiffusionPipeline
    return kind.from_pretrained(checkpoint, local_files_only=True)


def states(pipe: Any, component: str) -> Tensors:
    """The component's tensors in diffusers, adapters fused, under the names of files."""
    found = {name.replace(".base_layer", ""): value for name, value in getattr(pipe, component).state_dict().items()}
    found = {name: value for name, value in found.items() if "lora_" not in name and not name.endswith("position_ids")}
    if component == "unet":
        return found
    return {name if name.startswith("text_") else f"text_model.{name}": value for name, value in found.items()}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_fused_weights_are_those_of_diffusers(dialect: str, checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    name, write = DIALECTS[dialect]
    checkpoint = checkpoints(name)
    tensors, metadata = write(checkpoint, COMPONENTS[name])
    folder = save(tmp_path / "lora", tensors, metadata)
    pipe = pipeline(name, checkpoint)
    pipe.load_lora_weights(folder, weight_name="mine.safetensors")
    pipe.fuse_lora(components=[*COMPONENTS[name]], lora_scale=0.7)
    changed = 0
    for component in COMPONENTS[name]:
        ours = fused(checkpoint, component, {"lora-1": (folder, "0.7")}, tmp_path / component)
        theirs, before = states(pipe, component), weights(checkpoint, component)
        assert set(ours) == set(before)
        for key, value in ours.items():
            if key.endswith("position_ids"):
                continue
            torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-6, msg=key)
            changed += not torch.equal(value, before[key])
    assert changed == sum(".lora_up." in key or ".lora_B." in key or ".up.weight" in key for key in tensors)


def test_several_loras_are_added(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = checkpoints("tiny-sd")
    first = save(tmp_path / "first", peft(checkpoint, ("unet",))[0])
    second = save(tmp_path / "second", kohya(checkpoint, ("unet", "text_encoder"))[0])
    pipe = pipeline("tiny-sd", checkpoint)
    pipe.load_lora_weights(first, weight_name="mine.safetensors", adapter_name="first")
    pipe.load_lora_weights(second, weight_name="mine.safetensors", adapter_name="second")
    pipe.set_adapters(["first", "second"], [0.5, -0.25])
    pipe.fuse_lora(components=["unet", "text_encoder"], adapter_names=["first", "second"])
    for component in ("unet", "text_encoder"):
        loras = {"lora-1": (first, "0.5"), "lora-2": (second, "-0.25")}
        ours = fused(checkpoint, component, loras, tmp_path / component)
        for key, value in states(pipe, component).items():
            torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_half_precision_stays_half_and_is_rounded_once(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = tmp_path / "half"
    (checkpoint / "unet").mkdir(parents=True)
    exact = weights(checkpoints("tiny-sd"), "unet")
    save_file({n: t.half() for n, t in exact.items()}, checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    (checkpoint / "unet" / "config.json").write_text("{}")
    tensors = {name: tensor.half() for name, tensor in peft(checkpoints("tiny-sd"), ("unet",))[0].items()}
    ours = fused(checkpoint, "unet", {"lora-1": (save(tmp_path / "lora", tensors), "1")}, tmp_path / "out")
    name = next(key for key in tensors if key.endswith("lora_A.weight"))
    module = name.removeprefix("unet.").removesuffix(".lora_A.weight")
    up, down = tensors[name.replace("lora_A", "lora_B")].double(), tensors[name].double()
    expected = exact[f"{module}.weight"].half().double() + (up.flatten(1) @ down.flatten(1)).reshape(
        exact[f"{module}.weight"].shape
    )
    assert torch.equal(ours[f"{module}.weight"], expected.half())


def test_a_component_that_no_lora_changes_keeps_its_files(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = checkpoints("tiny-sd")
    folder = save(tmp_path / "lora", peft(checkpoint, ("unet",))[0])
    fused(checkpoint, "text_encoder", {"lora-1": (folder, "1")}, tmp_path / "out")
    for path in (checkpoint / "text_encoder").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_each_weight_has_its_own_alpha(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = checkpoints("tiny-sd")
    tensors = kohya(checkpoint, ("unet",))[0]
    alphas = [name for name in tensors if name.endswith(".alpha")]
    for index, name in enumerate(alphas):
        tensors[name] = torch.tensor(1.0 + index % 3)
    ours = fused(checkpoint, "unet", {"lora-1": (save(tmp_path / "lora", tensors), "0.5")}, tmp_path / "out")
    before = weights(checkpoint, "unet")
    modules = {f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": name for name in before}
    for name in alphas:
        module = name.removesuffix(".alpha")
        key = modules[module]
        down, up = tensors[f"{module}.lora_down.weight"], tensors[f"{module}.lora_up.weight"]
        delta = 0.5 * tensors[name] / RANK * (up.flatten(1) @ down.flatten(1))
        torch.testing.assert_close(ours[key], before[key] + delta.reshape(before[key].shape))


def first_key(tensors: Tensors) -> str:
    return next(name for name in tensors if name.endswith("lora_A.weight"))


FAULTS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "dora": (lambda t: t.update({"unet.a.dora_scale": torch.ones(2)}), "a.dora_scale belongs to no change"),
    "half-a-pair": (lambda t: t.pop(first_key(t)), "has half a pair"),
    "strange": (lambda t: t.update({"optimizer.state": torch.ones(2)}), "optimizer.state is nothing that a LoRA holds"),
    "empty": (lambda t: t.clear(), "holds no pair of low-rank tensors"),
    "other-family": (
        lambda t: t.update({first_key(t): torch.ones(RANK, 7)}),
        "mine.safetensors: .*trained for another family",
    ),
    "other-blocks": (
        lambda t: t.update({f"unet.nowhere.lora_{kind}.weight": torch.ones(RANK, RANK) for kind in "AB"}),
        "unet has no unet.nowhere.*trained for another size of this family",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_cannot_be_fused(fault: str, checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    checkpoint = checkpoints("tiny-sd")
    tensors = peft(checkpoint, ("unet",))[0]
    change(tensors)
    folder = save(tmp_path / "lora", tensors)
    with pytest.raises(ModelError, match=f"(?s){message}"):
        fused(checkpoint, "unet", {"lora-1": (folder, "1")}, tmp_path / "out")
