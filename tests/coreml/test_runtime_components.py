"""Whole components, converted by coremltools alone, agree with torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel, T5Config, T5EncoderModel

from sdbuild.coreml.lowering.patches.operators import register_missing_operators
from sdbuild.coreml.runtime import Model

Built = tuple[nn.Module, dict[str, Tensor]]


class Calling(nn.Module):
    """A module whose forward is another function of it."""

    def __init__(self, module: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module = module.eval()
        self.call = call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.module, *inputs)


def unet() -> Built:
    module = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32,),
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=32,
        norm_num_groups=8,
    )
    inputs = {"x": torch.randn(2, 4, 16, 16), "t": torch.tensor([981.0, 1.0]), "e": torch.randn(2, 9, 32)}
    return Calling(module, lambda m, x, t, e: m(x, t, e, return_dict=False)[0]), inputs


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        latent_channels=4,
    )


def vae_decoder() -> Built:
    return Calling(autoencoder(), lambda m, z: m.decode(z, return_dict=False)[0]), {"x": torch.randn(1, 4, 8, 8)}


def vae_encoder() -> Built:
    return Calling(autoencoder(), lambda m, x: m.quant_conv(m.encoder(x))), {"x": torch.randn(1, 3, 16, 16)}


def clip_text() -> Built:
    config = CLIPTextConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    config._attn_implementation = "sdpa"
    ids = torch.randint(0, 98, (1, 77), dtype=torch.int32)
    return Calling(CLIPTextModel(config), lambda m, x: m(x.long(), return_dict=False)[0]), {"x": ids}


def clip_vision() -> Built:
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    return Calling(CLIPVisionModel(config), lambda m, x: m(x).pooler_output), {"x": torch.randn(1, 3, 32, 32)}


def mmdit() -> Built:
    module = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=8,
    )
    inputs = {
        "x": torch.randn(2, 4, 8, 8),
        "e": torch.randn(2, 6, 32),
        "p": torch.randn(2, 16),
        "t": torch.ones(2) * 500,
    }
    return Calling(module, lambda m, x, e, p, t: m(x, e, p, t, return_dict=False)[0]), inputs


def t5() -> Built:
    config = T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    ids = torch.randint(0, 98, (1, 12), dtype=torch.int32)
    return Calling(T5EncoderModel(config), lambda m, x: m(x.long()).last_hidden_state), {"x": ids}


def decibels(got: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal-to-noise ratio."""
    error = np.sqrt(np.mean((got.astype(np.float64) - expected) ** 2))
    return float(20 * np.log10(np.abs(expected).max() / max(error, 1e-30)))


def converted(build: Callable[[], Built], out: Path, target: str, precision: str) -> tuple[Path, Any, np.ndarray]:
    torch.manual_seed(0)
    register_missing_operators()
    module, inputs = build()
    with torch.no_grad():
        expected = module(*inputs.values()).numpy()
        if build is t5:  # its position buckets are exported with an operator that coremltools lacks
            exported: Any = torch.jit.trace(module.eval(), tuple(inputs.values()), check_trace=False)
        else:
            exported = torch.export.export(module, tuple(inputs.values())).run_decompositions({})
    ct.convert(
        exported,
        inputs=[
            ct.TensorType(name, shape=value.shape, dtype=np.int32 if value.dtype == torch.int32 else np.float32)
            for name, value in inputs.items()
        ],
        outputs=[ct.TensorType("y", dtype=np.float32)],
        minimum_deployment_target=ct.target[target],
        compute_precision=ct.precision[precision],
        skip_model_load=True,
    ).save(str(out))
    return out, {name: value.numpy() for name, value in inputs.items()}, expected


COMPONENTS = [unet, vae_decoder, vae_encoder, clip_text, clip_vision, mmdit, t5]


@pytest.mark.parametrize("build", COMPONENTS, ids=lambda build: build.__name__)
def test_full_precision_packages_agree_with_torch(build: Callable[[], Built], tmp_path: Path) -> None:
    target = "iOS18" if build in (mmdit, clip_vision) else "iOS16"
    path, inputs, expected = converted(build, tmp_path / "m.mlpackage", target, "FLOAT32")
    assert decibels(Model(path, "fp32").predict(inputs)["y"], expected) >= 100
    assert decibels(Model(path, "fp16").predict(inputs)["y"], expected) >= 100


def test_half_precision_package_agrees_with_torch(tmp_path: Path) -> None:
    path, inputs, expected = converted(unet, tmp_path / "m.mlpackage", "iOS17", "FLOAT16")
    full, half = (Model(path, precision).predict(inputs)["y"] for precision in ("fp32", "fp16"))
    assert decibels(full, expected) > decibels(half, expected) >= 40
    # Observing a run switches fusion off; both ways agree in either precision.
    for precision, gate in (("fp32", 120), ("fp16", 55)):
        model = Model(path, precision)  # type: ignore[arg-type]
        plain = model.predict(inputs, observe=lambda name, operation, value: None)["y"]
        assert "attention" in {step.operation for step in model._programs[0]._fused_steps}
        assert decibels(model.predict(inputs)["y"], plain) >= gate
