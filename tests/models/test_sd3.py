"""Stable Diffusion 3's transformer and T5 compute what diffusers and transformers compute: at least 100 dB."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdbuild.models.build import build
from sdbuild.models.component import ComponentModel
from sdbuild.models.errors import ModelError
from sdbuild.models.original import reference
from sdbuild.models.parity import psnr
from sdbuild.models.t5 import buckets

GATE = 100.0
Save = Callable[..., Path]


def transformer(checkpoint: Path, height: int = 8, width: int = 12, **options: Any) -> ComponentModel:
    return build("transformer", checkpoint, latent_height=height, latent_width=width, text_sequence_length=5, **options)


def transformer_parity(model: ComponentModel, checkpoint: Path) -> float:
    torch.manual_seed(2)
    inputs = [torch.randn(spec.shape) for spec in model.inputs]
    inputs[1] = torch.tensor([913.25, 913.25])[: len(inputs[1])]
    (result,) = model.materialise()(*inputs)
    (expected,) = reference("transformer", checkpoint)(*inputs)
    assert result.shape == model.outputs[0].shape
    return psnr(expected.numpy(), result.numpy())


@pytest.mark.parametrize("implementation", ["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA"])
@pytest.mark.parametrize("family", ["sd3", "sd35"])
def test_transformer(saved: Save, family: str, implementation: str) -> None:
    # 4×6 patches and 10 tokens are 34 queries: a piece of 9 does not divide them.
    checkpoint = saved("transformer", family)
    model = transformer(checkpoint, attention_implementation=implementation, query_chunk=9)
    assert transformer_parity(model, checkpoint) >= GATE


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 1},
        {"dual_attention_layers": (0, 1, 2)},
        {"patch_size": 1, "out_channels": 4},
        {"in_channels": 4, "out_channels": None},
    ],
)
def test_other_transformers(saved: Save, changes: dict[str, Any]) -> None:
    checkpoint = saved("transformer", "sd35", **changes)
    assert transformer_parity(transformer(checkpoint, 7 if "patch_size" in changes else 8, 10), checkpoint) >= GATE


@pytest.mark.parametrize(("height", "width"), [(20, 20), (2, 18), (20, 4)])
def test_positions_are_the_middle_of_the_square(saved: Save, height: int, width: int) -> None:
    checkpoint = saved("transformer")
    assert transformer_parity(transformer(checkpoint, height, width, batch=1), checkpoint) >= GATE


def test_interface_of_the_transformer(saved: Save) -> None:
    model = transformer(saved("transformer"))
    assert {spec.name: (spec.shape, spec.dtype) for spec in (*model.inputs, *model.outputs)} == {
        "latent_image_embeddings": ((2, 16, 8, 12), "float16"),
        "timestep": ((2,), "float32"),
        "token_level_text_embeddings": ((2, 40, 1, 10), "float16"),
        "pooled_text_embeddings": ((2, 24, 1, 1), "float16"),
        "denoiser_output": ((2, 16, 8, 12), "float32"),
    }
    assert model.float32_modules == ("time_text_embed.time_proj",)
    assert all(spec.description for spec in (*model.inputs, *model.outputs))


def test_mistakes_with_transformers(saved: Save, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="multiples of 2, for example 8 by 6"):
        transformer(saved("transformer"), 8, 7)
    with pytest.raises(ModelError, match="too large: the model has positions for 20 by 20"):
        transformer(saved("transformer"), 8, 22)
    shutil.copytree(saved("transformer"), tmp_path / "transformer")
    config = json.loads((tmp_path / "transformer/config.json").read_text())
    for field, value in {"qk_norm": "layer_norm", "caption_projection_dim": 64, "pos_embed_max_size": 0}.items():
        (tmp_path / "transformer/config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(ModelError, match=rf"config\.json: `?{field}`? (= |is 0)"):
            transformer(tmp_path / "transformer")
    (tmp_path / "transformer/config.json").write_text(json.dumps(config | {"num_layers": 4}))
    with pytest.raises(ModelError, match=r"missing: transformer_blocks\.3\.norm1"):
        transformer(tmp_path / "transformer")


T5S: dict[str, dict[str, Any]] = {
    "version 1.1": {},
    "version 1": {"feed_forward_proj": "relu"},
    "gated with another activation": {"feed_forward_proj": "gated-silu"},
    "few and near buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
}


@pytest.mark.parametrize("words", [1, 30, 77])
@pytest.mark.parametrize("case", T5S)
def test_t5(saved: Save, case: str, words: int) -> None:
    checkpoint = saved("t5", **T5S[case])
    model = build("text_encoder_3", checkpoint)
    torch.manual_seed(3)
    ids = torch.randint(2, 100, (1, 77), dtype=torch.int32)
    ids[:, words:] = 0
    for mask in ((ids == 0).float(), torch.zeros(1, 77)):
        (result,) = model.materialise()(ids, mask)
        (expected,) = reference("text_encoder_3", checkpoint)(ids, mask)
        assert result.shape == expected.shape == model.outputs[0].shape == (1, 32, 1, 77)
        assert psnr(expected.numpy(), result.numpy()) >= GATE


def test_t5_of_a_whole_t5(saved: Save, tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(**{**T5Config.from_pretrained(saved("t5")).to_dict(), "num_decoder_layers": 1})
    torch.manual_seed(1)
    whole = T5ForConditionalGeneration(config)
    state = whole.state_dict()
    # Pickles hold the shared embedding under each of its names.
    torch.save(state, tmp_path / "pytorch_model.bin")
    config.save_pretrained(tmp_path)
    assert "encoder.embed_tokens.weight" in state
    model = build("text_encoder_3", tmp_path, text_sequence_length=80)
    ids = torch.arange(2, 82, dtype=torch.int32)[None]
    (result,) = model.materialise()(ids, torch.zeros(1, 80))
    expected = whole.eval().encoder(ids.long()).last_hidden_state.transpose(1, 2)[:, :, None]
    assert psnr(expected.numpy(), result.numpy()) >= GATE


def test_t5_keeps_its_stream_in_half_precisions_range(saved: Save, tmp_path: Path) -> None:
    """With weights that make the stream exceed 65504, as those of the largest T5 do."""
    from transformers import T5EncoderModel

    original = T5EncoderModel.from_pretrained(saved("t5")).eval()
    for block in original.encoder.block:
        block.layer[1].DenseReluDense.wo.weight.mul_(5e4)
    original.save_pretrained(tmp_path)
    ids = torch.arange(2, 79, dtype=torch.int32)[None]
    stream = original(ids.long(), output_hidden_states=True).hidden_states[-2]
    assert stream.abs().max() > 65504
    seen: list[float] = []
    module = build("text_encoder_3", tmp_path).materialise()
    for child in module.modules():
        child.register_forward_hook(
            lambda _module, _inputs, output: seen.append(
                float(torch.as_tensor(output[0] if isinstance(output, tuple) else output).abs().max())
            )
        )
    (result,) = module(ids, torch.zeros(1, 77))
    assert max(seen) < 65504
    expected = original(ids.long()).last_hidden_state.transpose(1, 2)[:, :, None]
    assert psnr(expected.numpy(), result.numpy()) >= GATE


def test_buckets_are_transformers() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    for length, count, largest in ((77, 32, 128), (512, 32, 128), (300, 64, 90)):
        distance = torch.arange(length)[None] - torch.arange(length)[:, None]
        expected = T5Attention._relative_position_bucket(distance, True, count, largest)
        assert torch.equal(torch.from_numpy(buckets(length, count, largest)), expected)


def test_mistakes_with_t5(saved: Save, tmp_path: Path) -> None:
    shutil.copytree(saved("t5"), tmp_path / "t5")
    config = json.loads((tmp_path / "t5/config.json").read_text())
    (tmp_path / "t5/config.json").write_text(json.dumps(config | {"feed_forward_proj": "swish"}))
    with pytest.raises(ModelError, match="feed_forward_proj = 'swish'"):
        build("text_encoder_3", tmp_path / "t5")
    with pytest.raises(ModelError, match="holds a T5EncoderModel"):
        build("text_encoder", saved("t5"))


@pytest.mark.parametrize(
    ("component", "kind", "options"),
    [
        ("transformer", ("transformer", "sd35"), {"attention_implementation": "SPLIT_EINSUM_V2", "query_chunk": 20}),
        ("text_encoder_3", ("t5",), {}),
    ],
)
def test_export_without_weights(saved: Save, component: str, kind: tuple[str, ...], options: dict[str, Any]) -> None:
    model = build(component, saved(*kind), latent_height=8, latent_width=12, **options)
    state = model.module.state_dict()
    assert all(tensor.is_meta for tensor in (*state.values(), *model.example_inputs()))
    assert list(model.weights) == list(state)
    program = torch.export.export(model.module, model.example_inputs(), strict=False).run_decompositions({})
    values = [node.meta["val"] for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    assert max(value.ndim for value in values) <= 4
    assert not program.constants
