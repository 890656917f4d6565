"""What `build` promises its callers: interfaces, families, no memory, and refusals that name the field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sdbuild.models.build import build
from sdbuild.models.errors import ModelError

Save = Callable[..., Path]


def shapes(specs: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    return {spec.name: (spec.shape, spec.dtype) for spec in specs}


def test_interface_of_sd1(saved: Save) -> None:
    model = build("unet", saved("unet"), latent_height=8, latent_width=12, controlnet_ready=True)
    assert shapes(model.inputs) == {
        "sample": ((2, 4, 8, 12), "float16"),
        "timestep": ((2,), "float32"),
        "encoder_hidden_states": ((2, 24, 1, 77), "float16"),
        "additional_residual_0": ((2, 32, 8, 12), "float16"),
        "additional_residual_1": ((2, 32, 8, 12), "float16"),
        "additional_residual_2": ((2, 32, 4, 6), "float16"),
        "additional_residual_3": ((2, 64, 4, 6), "float16"),
        "additional_residual_4": ((2, 64, 4, 6), "float16"),
    }
    assert shapes(model.outputs) == {"noise_pred": ((2, 4, 8, 12), "float32")}
    assert model.float32_modules == ("time_proj",)
    assert all(spec.description for spec in (*model.inputs, *model.outputs))


def test_interface_of_sdxl_and_its_refiner(saved: Save) -> None:
    base = build("unet", saved("unet", "sdxl"), latent_height=8, latent_width=8)
    assert shapes(base.inputs) | {"text_embeds": ((2, 32), "float16"), "time_ids": ((2, 6), "float16")} == shapes(
        base.inputs
    )
    assert base.float32_modules == ("time_proj", "add_time_proj")
    refiner = build("unet", saved("unet", "sdxl-refiner"), latent_height=8, latent_width=8)
    assert shapes(refiner.inputs)["time_ids"] == ((2, 5), "float16")


def test_the_family_can_be_given(saved: Save) -> None:
    model = build("unet", saved("unet", "sdxl-refiner"), latent_height=8, latent_width=8, family="sdxl")
    assert shapes(model.inputs)["time_ids"][0] == (2, 6)


@pytest.mark.parametrize("width", [768, 1024])
def test_sd1_and_sd2_differ_in_the_width_of_the_text(saved: Save, width: int) -> None:
    model = build("unet", saved("unet", cross_attention_dim=width), latent_height=8, latent_width=8)
    assert shapes(model.inputs)["encoder_hidden_states"] == ((2, width, 1, 77), "float16")


def test_batch_and_text_length(saved: Save) -> None:
    model = build("unet", saved("unet"), latent_height=8, latent_width=8, batch=1, text_sequence_length=256)
    assert [spec.shape for spec in model.inputs] == [(1, 4, 8, 8), (1,), (1, 24, 1, 256)]


def test_interface_of_t2i_adapters_and_their_unet(saved: Save) -> None:
    unet = build("unet", saved("unet"), latent_height=8, latent_width=12, batch=1, adapter_ready=True)
    assert shapes(unet.inputs[3:]) == {
        "additional_feature_0": ((1, 32, 8, 12), "float16"),
        "additional_feature_1": ((1, 64, 4, 6), "float16"),
    }
    adapter = build("t2i_adapter", saved("t2i_adapter"), latent_height=8, latent_width=12)
    assert shapes(adapter.inputs) == {"adapter_cond": ((1, 3, 64, 96), "float16")}
    assert shapes(adapter.outputs) == {
        "additional_feature_0": ((1, 32, 8, 12), "float32"),
        "additional_feature_1": ((1, 64, 4, 6), "float32"),
    }
    assert all(spec.description.endswith(".") for spec in (*adapter.inputs, *adapter.outputs))


@pytest.mark.parametrize(
    ("kind", "changes", "family", "message"),
    [
        ("full_adapter", {}, "sdxl", "an adapter for another family; SDXL takes full_adapter_xl"),
        ("full_adapter_xl", {}, None, "SD 1.x takes full_adapter or light_adapter"),
        ("full_adapter", {"in_channels": 4}, None, "in_channels = 4 is not supported; a picture has 1 or 3"),
        ("full_adapter", {"channels": [32] * 5}, None, "8 by 12 cannot be halved .* multiples of 16"),
    ],
)
def test_t2i_adapters_that_no_unet_takes(saved: Save, kind: str, changes: Any, family: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build("t2i_adapter", saved("t2i_adapter", kind, **changes), latent_height=8, latent_width=12, family=family)


KINDS = {
    "text_encoder": "text_encoder",
    "unet": "unet",
    "vae_decoder": "vae",
    "vae_encoder": "vae",
    "safety_checker": "safety_checker",
    "controlnet": "controlnet",
    "t2i_adapter": "t2i_adapter",
}


@pytest.mark.parametrize("component", KINDS)
def test_no_weight_is_in_memory_and_every_one_is_mapped(saved: Save, component: str) -> None:
    model = build(component, saved(KINDS[component]), latent_height=8, latent_width=8)
    state = model.module.state_dict()
    assert all(tensor.is_meta for tensor in (*state.values(), *model.module.buffers(), *model.example_inputs()))
    assert not model.module.training
    assert list(model.weights) == list(state)
    assert [model.weights[name].shape for name in state] == [tuple(tensor.shape) for tensor in state.values()]
    assert len(dict(model.module.named_buffers())) == sum(name in state for name, _ in model.module.named_buffers()), (
        "a buffer that is not in the state dictionary has no weight"
    )


@pytest.mark.parametrize("component", KINDS)
def test_export_without_weights(saved: Save, component: str) -> None:
    options = {"attention_implementation": "SPLIT_EINSUM_V2", "query_chunk": 20}
    model = build(component, saved(KINDS[component]), latent_height=8, latent_width=8, **options)
    program = torch.export.export(model.module, model.example_inputs(), strict=False).run_decompositions({})
    values = [node.meta["val"] for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    assert max(value.ndim for value in values) <= 4
    assert not program.constants
    results = next(node for node in program.graph.nodes if node.op == "output").args[0]
    assert [tuple(node.meta["val"].shape) for node in results] == [spec.shape for spec in model.outputs]


class Counter(TorchDispatchMode):
    """Counts the softmaxes that run."""

    softmaxes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.softmaxes += func is torch.ops.aten._softmax.default
        return func(*args, **(kwargs or {}))


def test_queries_are_split_only_where_weights_are_large(saved: Save) -> None:
    def softmaxes(implementation: str, **options: Any) -> int:
        model = build("unet", saved("unet"), attention_implementation=implementation, latent_width=8, **options)
        with Counter() as counter:
            model.module(*model.example_inputs())
        return counter.softmaxes

    # Three blocks at full size (one down, two up) and the middle one, each with self-attention and cross-attention.
    assert softmaxes("ORIGINAL", latent_height=8) == (3 + 1) * 2
    # Two heads each.
    assert softmaxes("SPLIT_EINSUM", latent_height=8) == (3 + 1) * 2 * 2
    # 64 queries in pieces of 24 make three; the middle block's 16 and a text of 13 tokens are shorter than a piece.
    pieces = softmaxes("SPLIT_EINSUM_V2", latent_height=8, query_chunk=24, text_sequence_length=13)
    assert pieces == (3 * (3 + 1) + 2) * 2
    assert softmaxes("SPLIT_EINSUM_V2", latent_height=8, query_chunk=64) == (3 + 1) * 2 * 2


UNSUPPORTED: dict[str, Any] = {
    "class_embed_type": "timestep",
    "num_class_embeds": 10,
    "addition_embed_type": "text",
    "encoder_hid_dim_type": "image_proj",
    "attention_type": "gated",
    "dual_cross_attention": True,
    "cross_attention_norm": "layer_norm",
    "time_embedding_type": "fourier",
}


def configured(saved: Save, target: Path, **changes: Any) -> Path:
    shutil.copytree(saved("unet"), target)
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_unsupported_fields_are_named(saved: Save, tmp_path: Path, field: str) -> None:
    checkpoint = configured(saved, tmp_path / "unet", **{field: UNSUPPORTED[field]})
    with pytest.raises(ModelError, match=rf"config\.json: {field} = "):
        build("unet", checkpoint, latent_height=8, latent_width=8)


def test_unsupported_blocks_are_named(saved: Save, tmp_path: Path) -> None:
    blocks = {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}
    with pytest.raises(ModelError, match="blocks of type AttnDownBlock2D"):
        build("unet", configured(saved, tmp_path / "unet", **blocks), latent_height=8, latent_width=8)


def test_other_mistakes(saved: Save, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Unknown component 'prior'"):
        build("prior", tmp_path)
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        build("unet", tmp_path)
    with pytest.raises(ModelError, match="holds a UNet2DConditionModel"):
        build("vae_decoder", saved("unet"))
    with pytest.raises(ModelError, match="multiples of 2, for example 8 by 6"):
        build("unet", saved("unet"), latent_height=8, latent_width=7)
    with pytest.raises(ModelError, match="Unknown attention implementation 'FLASH'"):
        build("unet", saved("unet"), attention_implementation="FLASH", latent_height=8, latent_width=8)
    with pytest.raises(ModelError, match="residuals or a T2I-Adapter's features, not both"):
        build("unet", saved("unet"), controlnet_ready=True, adapter_ready=True)
    with pytest.raises(ModelError, match="78 tokens"):
        build("text_encoder", saved("text_encoder"), text_sequence_length=78)
    with pytest.raises(ModelError, match="hidden_act = 'swish'"):
        build("text_encoder", saved("text_encoder", hidden_act="swish"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        build("unet", tmp_path)
