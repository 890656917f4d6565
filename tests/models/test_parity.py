"""What is converted computes what diffusers and transformers compute: at least 100 dB in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdbuild.models.build import build
from sdbuild.models.component import ComponentModel
from sdbuild.models.original import reference
from sdbuild.models.parity import psnr

GATE = 100.0
FAMILIES = ["sd1", "sd2", "sdxl", "sdxl-refiner", "lcm", "inpainting", "instruct-pix2pix"]
LAYOUTS = ["no-mid-block", "plain-mid-block", "text-projection", "only-cross-attention", "scale-shift"]
Save = Callable[..., Path]


def inputs_for(model: ComponentModel) -> list[torch.Tensor]:
    torch.manual_seed(2)
    values = {
        "input_ids": torch.tensor([[98, *range(1, 30), 99, *[99] * 46]], dtype=torch.int32),
        "timestep": torch.tensor([961.0, 961.0]),
        "time_ids": torch.tensor([[1024.0, 768, 0, 16, 1024, 768]] * 2),
    }
    inputs = []
    for spec in model.inputs:
        value = values.get(spec.name, torch.randn(spec.shape))
        inputs.append(value[tuple(slice(size) for size in spec.shape)])
    return inputs


def parity(model: ComponentModel, checkpoint: Path, family: str | None = None) -> dict[str, float]:
    inputs = inputs_for(model)
    results = model.materialise()(*[value.clone() for value in inputs])
    adapter_ready = any(spec.name.startswith("additional_feature") for spec in model.inputs)
    expected = reference(model.component, checkpoint, family=family, adapter_ready=adapter_ready)(*inputs)
    assert [tuple(result.shape) for result in results] == [spec.shape for spec in model.outputs]
    assert all(result.dtype == torch.float32 for result in results)
    return {
        spec.name: psnr(wanted.numpy(), result.numpy())
        for spec, wanted, result in zip(model.outputs, expected, results, strict=True)
    }


@pytest.mark.parametrize("implementation", ["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA"])
@pytest.mark.parametrize("family", FAMILIES + LAYOUTS)
def test_unet(saved: Save, family: str, implementation: str) -> None:
    # 10×18 are 180 queries at full size: pieces of 50 do not divide them, as 512 does not divide 40×72.
    checkpoint = saved("unet", family)
    model = build(
        "unet",
        checkpoint,
        attention_implementation=implementation,
        latent_height=10,
        latent_width=18,
        text_sequence_length=13,
        query_chunk=50,
    )
    assert parity(model, checkpoint)["noise_pred"] >= GATE


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 72), (4, 6)])
@pytest.mark.parametrize("implementation", ["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"])
def test_unet_sizes_with_the_real_query_chunk(saved: Save, implementation: str, height: int, width: int) -> None:
    checkpoint = saved("unet", "sd1")
    model = build(
        "unet",
        checkpoint,
        attention_implementation=implementation,
        latent_height=height,
        latent_width=width,
        batch=1,
    )
    assert parity(model, checkpoint)["noise_pred"] >= GATE


@pytest.mark.parametrize("implementation", ["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "no-mid-block"])
def test_unet_with_controlnet(saved: Save, family: str, implementation: str) -> None:
    sizes: dict[str, Any] = {"attention_implementation": implementation, "latent_height": 10, "latent_width": 18}
    checkpoint = saved("unet", family)
    unet = build("unet", checkpoint, controlnet_ready=True, query_chunk=50, **sizes)
    assert parity(unet, checkpoint)["noise_pred"] >= GATE
    if family == "no-mid-block":
        return
    checkpoint = saved("controlnet", family)
    controlnet = build("controlnet", checkpoint, query_chunk=50, **sizes)
    assert min(parity(controlnet, checkpoint).values()) >= GATE
    residuals = [spec for spec in unet.inputs if spec.name.startswith("additional_residual")]
    assert [(spec.name, spec.shape) for spec in controlnet.outputs] == [(spec.name, spec.shape) for spec in residuals]


@pytest.mark.parametrize("implementation", ["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA"])
@pytest.mark.parametrize("family", ["sd1", "sdxl", "lcm", "inpainting", "no-mid-block"])
def test_unet_with_t2i_adapter(saved: Save, family: str, implementation: str) -> None:
    sizes: dict[str, Any] = {"latent_height": 8, "latent_width": 12}
    checkpoint = saved("unet", family)
    settings = {"attention_implementation": implementation, "query_chunk": 50}
    unet = build("unet", checkpoint, adapter_ready=True, **settings, **sizes)
    assert parity(unet, checkpoint)["noise_pred"] >= GATE


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["full_adapter", "light_adapter", "full_adapter_xl"])
def test_t2i_adapter(saved: Save, kind: str, channels: int) -> None:
    checkpoint = saved("t2i_adapter", kind, in_channels=channels)
    family = "sdxl" if kind == "full_adapter_xl" else None
    adapter = build("t2i_adapter", checkpoint, latent_height=8, latent_width=12, family=family)
    assert [spec.shape for spec in adapter.inputs] == [(1, channels, 64, 96)]
    assert min(parity(adapter, checkpoint).values()) >= GATE


@pytest.mark.parametrize(("height", "width"), [(8, 8), (33, 40)])
@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
def test_vae(saved: Save, component: str, height: int, width: int) -> None:
    # 33×40 latents are 1320 queries: more than a piece, and not divided by one.
    checkpoint = saved("vae")
    model = build(component, checkpoint, latent_height=height, latent_width=width)
    assert min(parity(model, checkpoint).values()) >= GATE


@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
def test_vae_without_quantisation_layers_and_sixteen_channels(saved: Save, component: str) -> None:
    checkpoint = saved("vae", latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)
    model = build(component, checkpoint, latent_height=8, latent_width=8)
    assert min(parity(model, checkpoint).values()) >= GATE


TEXT_ENCODERS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "sd1": ("text_encoder", None, {}),
    "old end token": ("text_encoder", None, {"eos_token_id": 2}),
    "sd2": ("text_encoder", "sd2", {"hidden_act": "gelu"}),
    "sdxl first": ("text_encoder", "sdxl", {}),
    "sdxl second": ("text_encoder_2", "sdxl", {"projected": True, "hidden_act": "gelu"}),
    "sd3 first": ("text_encoder", "sd3", {"projected": True}),
}


@pytest.mark.parametrize("case", TEXT_ENCODERS)
def test_text_encoder(saved: Save, case: str) -> None:
    component, family, changes = TEXT_ENCODERS[case]
    checkpoint = saved("text_encoder", **changes)
    model = build(component, checkpoint, family=family)
    hidden = "hidden_embeds" if family in ("sdxl", "sd3") else "last_hidden_state"
    assert [spec.name for spec in model.outputs] == [hidden, "pooled_outputs"]
    assert min(parity(model, checkpoint, family).values()) >= GATE


def test_text_encoder_of_a_shorter_text(saved: Save) -> None:
    checkpoint = saved("text_encoder")
    model = build("text_encoder", checkpoint, text_sequence_length=40)
    assert min(parity(model, checkpoint).values()) >= GATE


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 2.0])
def test_safety_checker(saved: Save, tmp_path: Path, threshold: float) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    original = StableDiffusionSafetyChecker.from_pretrained(saved("safety_checker"))
    original.concept_embeds_weights.fill_(threshold)
    original.save_pretrained(tmp_path)
    model = build("safety_checker", tmp_path, latent_height=3, latent_width=5)
    assert min(parity(model, tmp_path).values()) >= GATE

    # And as diffusers itself decides, with no adjustment.
    clip_input, images, _ = inputs_for(model)
    filtered, unsafe, _scores = model.materialise()(clip_input, images, torch.zeros(1))
    assert images.count_nonzero(), "the input must not be blackened in place"
    wanted, flags = original.forward_onnx(clip_input, images.clone())
    assert torch.equal(filtered, wanted)
    assert unsafe.bool().tolist() == flags.tolist()


def test_text_embedding_of_the_first_end_token(saved: Save) -> None:
    model = build("text_encoder", saved("text_encoder")).materialise()
    ids = torch.full((1, 77), 99, dtype=torch.int32)
    ids[0, :5] = 3
    assert model.text_model.end_of_text(ids).tolist() == [5]
    assert model.text_model.end_of_text(torch.full_like(ids, 3)).tolist() == [0]


def test_psnr() -> None:
    assert psnr([0.0, 2.0], [0.0, 2.0]) == float("inf")
    assert psnr([0.0, 2.0], [0.2, 2.2]) == pytest.approx(20.0)
    assert psnr([0.0, 0.0], [0.1, 0.0]) == float("-inf")
    assert psnr([1.0], [float("nan")]) == float("-inf")
    with pytest.raises(ValueError, match="shapes differ"):
        psnr([1.0], [1.0, 2.0])
