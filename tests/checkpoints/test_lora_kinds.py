"""Kinds of adapters: each weight is what LyCORIS, whose authors made most of them, makes of the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lycoris.functional.boft import diff_weight as boft_difference
from lycoris.functional.general import weight_decompose
from lycoris.functional.loha import diff_weight as loha_difference
from lycoris.functional.lokr import diff_weight as lokr_difference
from lycoris.modules import get_module, make_module
from lycoris.modules.ia3 import _ia3_weight
from torch import nn

from sdbuild.models.errors import ModelError
from tests.checkpoints.adapters import Tensors, fused, random, save, weights

LINEAR = "mid_block.attentions.0.transformer_blocks.0.ff.net.2"  # without bias of a power of two only
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
POINT = "down_blocks.0.attentions.0.proj_in"
NORM = "down_blocks.0.resnets.0.norm1"
R = 4


def low_rank(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    ones = [1] * len(kernel)
    return {
        "lora_down.weight": random(R, inner, *kernel, seed=1),
        "lora_up.weight": random(out, R, *ones, seed=2),
        "alpha": torch.tensor(2.0),
    }


def tucker(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    return {
        "lora_down.weight": random(R, inner, 1, 1, seed=1),
        "lora_mid.weight": random(R, R, *kernel, seed=3),
        "lora_up.weight": random(out, R, 1, 1, seed=2),
        "alpha": torch.tensor(3.0),
    }


def loha(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    columns = inner * torch.Size(kernel).numel()
    sizes = {"hada_w1_a": (out, R), "hada_w1_b": (R, columns), "hada_w2_a": (out, R), "hada_w2_b": (R, columns)}
    return {name: random(*size, seed=i) for i, (name, size) in enumerate(sizes.items())} | {"alpha": torch.tensor(2.0)}


def loha_tucker(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    sizes = {"hada_t1": (R, R, *kernel), "hada_w1_a": (R, out), "hada_w1_b": (R, inner)}
    sizes |= {"hada_t2": (R, R, *kernel), "hada_w2_a": (R, out), "hada_w2_b": (R, inner)}
    return {name: random(*size, seed=i) for i, (name, size) in enumerate(sizes.items())} | {"alpha": torch.tensor(2.0)}


def lokr(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    return {
        "lokr_w1": random(4, 4, seed=1),
        "lokr_w2": random(out // 4, inner // 4, *kernel, seed=2),
        "alpha": torch.tensor(7.0),  # which both whole factors make void
    }


def lokr_low_rank(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    columns = inner // 4 * torch.Size(kernel).numel()
    return {
        "lokr_w1": random(4, 4, seed=1),
        "lokr_w2_a": random(out // 4, R, seed=2),
        "lokr_w2_b": random(R, columns, seed=3),
        "alpha": torch.tensor(2.0),
    }


def lokr_both(shape: torch.Size) -> Tensors:
    parts = lokr_low_rank(shape)
    del parts["lokr_w1"]
    return {"lokr_w1_a": random(4, R, seed=4), "lokr_w1_b": random(R, 4, seed=5)} | parts


def lokr_tucker(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    return {
        "lokr_w1": random(4, 4, seed=1),
        "lokr_t2": random(R, R, *kernel, seed=2),
        "lokr_w2_a": random(R, out // 4, seed=3),
        "lokr_w2_b": random(R, inner // 4, seed=4),
        "alpha": torch.tensor(2.0),
    }


def glora(shape: torch.Size) -> Tensors:
    out, inner, *kernel = shape
    ones = [1] * len(kernel)
    return {
        "a1.weight": random(inner, R, *ones, seed=1),
        "a2.weight": random(R, inner, *ones, seed=2),
        "b1.weight": random(out, R, *ones, seed=3),
        "b2.weight": random(R, inner, *kernel, seed=4),
        "alpha": torch.tensor(2.0),
    }


def full(shape: torch.Size) -> Tensors:
    return {"diff": random(*shape), "diff_b": random(shape[0], seed=1)}


def norm(shape: torch.Size) -> Tensors:
    return {"w_norm": random(*shape), "b_norm": random(*shape, seed=1)}


def outputs_scaled(shape: torch.Size) -> Tensors:
    size = (1, shape[0], 1, 1) if len(shape) == 4 else (shape[0],)
    return {"weight": random(*size), "on_input": torch.tensor(0)}


def oft(shape: torch.Size) -> Tensors:
    return {"oft_blocks": random(shape[0] // 4, 4, 4), "alpha": torch.tensor(0.0)}


def oft_bounded(shape: torch.Size) -> Tensors:
    bound, rescale = torch.tensor(0.001), random(shape[0], *[1] * (len(shape) - 1), seed=1) + 1
    return {"oft_blocks": random(shape[0] // 4, 4, 4), "alpha": bound, "rescale": rescale}


def boft(shape: torch.Size) -> Tensors:
    return {"oft_blocks": random(2, shape[0] // 4, 4, 4), "alpha": torch.tensor(0.0)}


def boft_rescaled(shape: torch.Size) -> Tensors:
    return boft(shape) | {"rescale": random(shape[0], *[1] * (len(shape) - 1), seed=1) + 1}


KINDS: dict[str, tuple[Callable[[torch.Size], Tensors], tuple[str, ...]]] = {
    "lora": (low_rank, (LINEAR, CONVOLUTION, POINT)),
    "tucker": (tucker, (CONVOLUTION,)),
    "loha": (loha, (LINEAR, CONVOLUTION)),
    "loha-tucker": (loha_tucker, (CONVOLUTION,)),
    "lokr": (lokr, (LINEAR, CONVOLUTION)),
    "lokr-low-rank": (lokr_low_rank, (LINEAR, CONVOLUTION)),
    "lokr-both": (lokr_both, (LINEAR,)),
    "lokr-tucker": (lokr_tucker, (CONVOLUTION,)),
    "glora": (glora, (LINEAR, CONVOLUTION)),
    "full": (full, (LINEAR, CONVOLUTION)),
    "norm": (norm, (NORM,)),
    "ia3": (outputs_scaled, (LINEAR, CONVOLUTION)),
    "oft": (oft, (LINEAR, CONVOLUTION)),
    "oft-bounded": (oft_bounded, (LINEAR,)),
    "boft": (boft, (LINEAR, CONVOLUTION)),
    "boft-rescaled": (boft_rescaled, (LINEAR,)),
}


def module_of(unet: Tensors, name: str) -> nn.Module:
    """The layer in torch, as LyCORIS wants it."""
    weight, bias = unet[f"{name}.weight"], unet.get(f"{name}.bias")
    if "norm" in name:
        layer: nn.Module = nn.GroupNorm(32, len(weight))
    elif weight.ndim == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
    layer.load_state_dict({"weight": weight} | ({"bias": bias} if bias is not None else {}))
    return layer.requires_grad_(False)


def difference(parts: Tensors, weight: torch.Tensor, strength: float) -> torch.Tensor | None:
    """What LyCORIS's functions make of kinds whose modules it cannot make anew from every file."""
    alpha = float(parts.get("alpha", 0))
    if "hada_w1_a" in parts:
        # Its module multiplies with α/r a second time where it merges, and once where it trains and draws.
        names = ("hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2")
        made = loha_difference(*(parts.get(name) for name in names), gamma=torch.tensor(alpha / R))
    elif any(name.startswith("lokr") for name in parts):
        names = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
        if "lokr_t2" in parts:
            # The function divides by the second side of w2_a, which is the rank only without a core; modules do not.
            alpha *= parts["lokr_w2_a"].shape[1] / R
        made = lokr_difference(*(parts.get(name) for name in names), gamma=alpha)
    elif "oft_blocks" in parts and parts["oft_blocks"].ndim == 4:
        bound = alpha * len(weight)
        return boft_difference(weight, parts["oft_blocks"], parts.get("rescale"), constraint=bound, scale=strength)
    elif "on_input" in parts:
        return _ia3_weight(weight, parts["weight"], bool(parts["on_input"]), strength, True)
    else:
        return None
    return strength * made.reshape(weight.shape)


def by_lycoris(parts: Tensors, layer: nn.Module, strength: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight and the bias that the reference makes."""
    if (added := difference(parts, layer.weight, strength)) is not None:
        return layer.weight + added, None
    state = {f"x.{name}": tensor for name, tensor in parts.items()}
    kind, found = get_module(state, "x")
    return make_module(kind, found, "x", layer).get_merged_weight(multiplier=strength)  # type: ignore[no-any-return]


@pytest.mark.parametrize("strength", ["1", "0.6"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_lycoris(kind: str, strength: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    write, modules = KINDS[kind]
    unet = weights(saved("unet"))
    tensors: Tensors = {}
    for name in modules:
        key = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{key}.{part}": tensor for part, tensor in write(unet[f"{name}.weight"].shape).items()}
    ours = fused(saved("unet"), "unet", save(tmp_path / "lora", tensors), tmp_path / "out", strength)
    changed = {name for name, tensor in ours.items() if not torch.equal(tensor, unet[name])}
    for name in modules:
        parts = write(unet[f"{name}.weight"].shape)
        weight, bias = by_lycoris(parts, module_of(unet, name), float(strength))
        torch.testing.assert_close(ours[f"{name}.weight"], weight, rtol=2e-5, atol=2e-6)
        changed.remove(f"{name}.weight")
        if {"diff_b", "b_norm"} & parts.keys():
            assert bias is not None
            torch.testing.assert_close(ours[f"{name}.bias"], bias)
            changed.remove(f"{name}.bias")
    assert changed == set()


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr-low-rank"])
@pytest.mark.parametrize("along", ["outputs", "inputs"])
def test_magnitudes_are_those_of_lycoris(kind: str, along: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    write, modules = KINDS[kind]
    unet = weights(saved("unet"))
    for name in modules:
        shape = unet[f"{name}.weight"].shape
        size = (shape[0], *[1] * (len(shape) - 1)) if along == "outputs" else (1, shape[1], *[1] * (len(shape) - 2))
        parts = write(shape) | {"dora_scale": random(*size, seed=9) + 1}
        key = f"lora_unet_{name.replace('.', '_')}"
        lora = save(tmp_path / name, {f"{key}.{part}": tensor for part, tensor in parts.items()})
        ours = fused(saved("unet"), "unet", lora, tmp_path / f"out-{name}")
        layer = module_of(unet, name)
        merged, _ = by_lycoris({part: t for part, t in parts.items() if part != "dora_scale"}, layer, 1.0)
        expected = weight_decompose(merged, parts["dora_scale"], 1, along == "outputs")
        torch.testing.assert_close(ours[f"{name}.weight"], expected, rtol=2e-5, atol=2e-6)


def test_glora_in_its_first_layout(saved: Callable[..., Path], tmp_path: Path) -> None:
    """ComfyUI's reading of it: b2·b1 + W·a2·a1."""
    weight = weights(saved("unet"))[f"{LINEAR}.weight"]
    out, inner = weight.shape
    parts = {
        "a1.weight": random(R, inner, seed=1),
        "a2.weight": random(inner, R, seed=2),
        "b1.weight": random(R, inner, seed=3),
        "b2.weight": random(out, R, seed=4),
        "alpha": torch.tensor(2.0),
    }
    key = f"lora_unet_{LINEAR.replace('.', '_')}"
    lora = save(tmp_path / "lora", {f"{key}.{part}": tensor for part, tensor in parts.items()})
    ours = fused(saved("unet"), "unet", lora, tmp_path / "out", "0.5")[f"{LINEAR}.weight"]
    a1, a2, b1, b2 = (parts[f"{name}.weight"].double() for name in ("a1", "a2", "b1", "b2"))
    expected = weight.double() + 0.5 * 2 / R * (b2 @ b1 + weight.double() @ a2 @ a1)
    torch.testing.assert_close(ours, expected.float())


def test_inputs_are_scaled_where_the_file_says_so(saved: Callable[..., Path], tmp_path: Path) -> None:
    weight = weights(saved("unet"))[f"{LINEAR}.weight"]
    factors = random(weight.shape[1])
    key = f"lora_unet_{LINEAR.replace('.', '_')}"
    lora = save(tmp_path / "lora", {f"{key}.weight": factors, f"{key}.on_input": torch.tensor(1)})
    ours = fused(saved("unet"), "unet", lora, tmp_path / "out")[f"{LINEAR}.weight"]
    torch.testing.assert_close(ours, weight * (1 + factors))


def test_changes_follow_each_other_in_the_order_of_the_recipe(saved: Callable[..., Path], tmp_path: Path) -> None:
    """A rotation of what a difference was added to before."""
    from sdbuild.checkpoints.checkpoint import Checkpoint
    from sdbuild.checkpoints.lora.file import Lora
    from sdbuild.checkpoints.lora.fused import fuse

    weight = weights(saved("unet"))[f"{QUERY}.weight"]
    key = f"lora_unet_{QUERY.replace('.', '_')}"
    difference, blocks = random(*weight.shape), oft(weight.shape)
    first = save(tmp_path / "first", {f"{key}.diff": difference}) / "mine.safetensors"
    second = save(tmp_path / "second", {f"{key}.{n}": t for n, t in blocks.items()}) / "mine.safetensors"
    loras = [Lora({path.name: path}, 1.0, path.parent.name) for path in (first, second)]
    ours = fuse("unet", Checkpoint.open(saved("unet")), loras)[f"{QUERY}.weight"].read()
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight.copy_(weight + difference)
    torch.testing.assert_close(torch.from_numpy(ours.copy()), by_lycoris(blocks, layer, 1.0)[0])


REFUSED = {
    "two-kinds": (low_rank(torch.Size((64, 64))) | oft(torch.Size((64, 64))), "holds parts of OFT and of LoRA"),
    "half-a-loha": ({"hada_w1_a": random(64, R)}, "holds hada_w1_a, which is not all of LoHa"),
    "alpha-alone": ({"alpha": torch.tensor(1.0)}, r"\.alpha belongs to no change"),
    "alpha-zero": (low_rank(torch.Size((64, 64))) | {"alpha": torch.tensor(0.0)}, "alpha is 0"),
    "alpha-nan": (low_rank(torch.Size((64, 64))) | {"alpha": torch.tensor(float("nan"))}, "is no number"),
    "alpha-many": (low_rank(torch.Size((64, 64))) | {"alpha": torch.ones(3)}, "is no number"),
    "two-changes": (low_rank(torch.Size((64, 64))) | {"weight": random(64, 64)}, "holds two changes of its weight"),
    "oft-with-dora": (oft(torch.Size((64, 64))) | {"dora_scale": random(64, 1)}, "OFT with a magnitude"),
    "peft-oft": ({"oft_R.weight": random(2, 2)}, "peft's OFT .* cannot be fused"),
    "vera": ({"vera_lambda_b": random(2)}, "VeRA .* cannot be fused"),
    "adalora": ({"lora_E": random(2, 1)}, "AdaLoRA .* cannot be fused"),
    "t-lora": ({"lambda_layer": random(2, 1)}, "T-LoRA, .* cannot be fused"),
    "other-shape": (low_rank(torch.Size((64, 32))), "trained for another family"),
    "other-core": (
        low_rank(torch.Size((64, 64))) | {"lora_mid.weight": random(R + 1, R, 1, 1)},
        "trained for another family",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_fused_is_refused_by_name(fault: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    parts, message = REFUSED[fault]
    key = f"lora_unet_{QUERY.replace('.', '_')}"
    lora = save(tmp_path / "lora", {f"{key}.{part}": tensor for part, tensor in parts.items()})
    with pytest.raises(ModelError, match=f"(?s)mine.safetensors: .*{message}"):
        fused(saved("unet"), "unet", lora, tmp_path / "out")
