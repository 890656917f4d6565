"""The tiny checkpoints: same bytes everywhere, and exactly what diffusers and transformers would have saved."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from sdbuild.builtin import tiny
from sdbuild.builtin.tiny import PIPELINES, tokenizer, unigram, variants, weights
from sdbuild.checkpoints import topology


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    for name in tiny.NAMES:
        tiny.generate(name, root / name)
    return {name: root / name for name in tiny.NAMES}


def digest(directory: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(directory).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def test_the_bytes_are_fixed(checkpoints: dict[str, Path]) -> None:
    # A change here changes every built-in bundle on every machine: make it on purpose only.
    golden = json.loads((Path(__file__).parent / "tiny_digests.json").read_text())
    assert {name: digest(path) for name, path in checkpoints.items()} == golden


def test_folders_can_be_generated_alone(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    tiny.generate("tiny-sd", tmp_path, folders=["unet", "scheduler"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scheduler", "unet"]
    assert digest(tmp_path / "unet") == digest(checkpoints["tiny-sd"] / "unet")


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(tiny.UnknownCheckpointError, match="tiny-sdxl"):
        tiny.generate("tiny-sd9", tmp_path)


def stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with file.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


MODELS = [
    (pipeline, folder, config)
    for pipeline, folders in PIPELINES.items()
    for folder, config in folders.items()
    if variants.origin(pipeline, folder) == pipeline
    and (
        "architectures" in config
        or config.get("_class_name")
        in ("UNet2DConditionModel", "SD3Transformer2DModel", "AutoencoderKL", "ControlNetModel", "T2IAdapter")
    )
]


def load(architecture: str, directory: Path) -> torch.nn.Module:
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    known: dict[str, Any] = {"StableDiffusionSafetyChecker": StableDiffusionSafetyChecker}
    kind = known.get(architecture) or getattr(diffusers, architecture, None) or getattr(transformers, architecture)
    model, report = kind.from_pretrained(directory, output_loading_info=True)
    unexpected = {name for name in report["unexpected_keys"] if not name.endswith("position_ids")}
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert not unexpected
    return model.eval()


@pytest.mark.parametrize(("pipeline", "folder", "config"), MODELS, ids=[f"{p}-{f or 'model'}" for p, f, _ in MODELS])
def test_every_tensor_is_one_of_the_real_class(
    checkpoints: dict[str, Path], pipeline: str, folder: str, config: dict[str, Any]
) -> None:
    architecture = config.get("_class_name") or config["architectures"][0]
    model = load(architecture, checkpoints[pipeline] / folder)
    stored = next((checkpoints[pipeline] / folder).glob("*.safetensors"))
    # T5's embedding has two names.
    tensors = {value.data_ptr(): value for value in model.state_dict().values()}
    expected = sorted(tuple(value.shape) for value in tensors.values())
    found = sorted(shape for name, shape in stored_shapes(stored).items() if not name.endswith("position_ids"))
    assert found == expected
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sd2", "tiny-sdxl", "tiny-ssd", "tiny-sdxl-turbo", "tiny-sd3"])
def test_the_pipeline_draws_a_picture(checkpoints: dict[str, Path], name: str) -> None:
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(checkpoints[name])
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        ["a photo of an astronaut", "a fox"],
        height=128,
        width=128,
        num_inference_steps=3,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images
    assert images.shape == (2, 128, 128, 3)
    assert images[0].std() > 0.02
    assert abs(images[0] - images[1]).mean() > 1e-3, "the prompt has no influence"


def test_the_tokenizer_agrees_with_transformers(checkpoints: dict[str, Path]) -> None:
    from transformers import CLIPTokenizer

    vocabulary, merges = tokenizer.files()
    reference = CLIPTokenizer.from_pretrained(checkpoints["tiny-sd"] / "tokenizer")
    assert len(reference) == len(vocabulary) == tokenizer.VOCABULARY_SIZE
    ids = reference("a forest of unknown words!").input_ids
    assert [vocabulary[token] for token in ("<|startoftext|>", "a</w>", "forest</w>", "of</w>")] == ids[:4]
    assert ids[-2:] == [vocabulary["!</w>"], vocabulary["<|endoftext|>"]]
    assert vocabulary["!"] == 0
    assert merges.endswith("\n")
    assert all(len(line.split()) == 2 for line in merges.splitlines()[1:])


def test_t5s_tokenizer_agrees_with_transformers(checkpoints: dict[str, Path]) -> None:
    from transformers import AutoTokenizer

    pieces = [piece for piece, _ in unigram.vocabulary()]
    reference = AutoTokenizer.from_pretrained(checkpoints["tiny-sd3"] / "tokenizer_3")
    assert len(reference) == len(pieces) == unigram.VOCABULARY_SIZE
    ids = reference("a fox in the xq", padding="max_length", max_length=10).input_ids
    assert [pieces[index] for index in ids] == [
        *("▁a", "▁fox", "▁in", "▁the", "▁", "x", "q", "</s>", "<pad>", "<pad>"),
    ]


def test_values_are_exact_on_every_machine() -> None:
    values = weights.normal("key", (3,))
    assert [value.hex() for value in values.astype(float).tolist()] == GOLDEN_VALUES


def test_values_are_nearly_normal() -> None:
    values = weights.normal("key", (20000,), mean=1.0, deviation=0.5)
    assert abs(values.mean() - 1) < 0.02
    assert abs(values.std() - 0.5) < 0.01


def test_many_tensors_are_large_enough_for_palettization() -> None:
    shapes = topology.unet(PIPELINES["tiny-sd"]["unet"])
    assert sum(1 for shape in shapes.values() if torch.Size(shape).numel() >= 2048) > 50


GOLDEN_VALUES = ["-0x1.2437460000000p-1", "-0x1.dd735c0000000p-1", "0x1.b357140000000p-2"]
