"""Textual inversions: the grown text encoders say what diffusers' say with the same files loaded."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from sdbuild.builtin import tiny
from sdbuild.bundle.byte_pairs import BytePairs
from sdbuild.bundle.document import textual_inversions
from sdbuild.bundle.errors import BundleError
from sdbuild.models.build import build
from sdbuild.models.errors import ModelError
from sdbuild.models.original import reference
from sdbuild.models.scene import scene_of
from sdbuild.pipeline.clients.diffusers.prompts import DiffusersReader
from sdbuild.stages import embed

WIDTH = 64
ONE, BOTH = ["text_encoder"], ["text_encoder", "text_encoder_2"]
PROMPTS = ("a photo of a <toy> on mars", "<toy>, STYLE-B and style-b", "a cat in style-b.", "a fox in the forest")


def vectors(count: int, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed + count))


def write(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(parents=True)
    if name.endswith(".safetensors"):
        save_file(content, folder / name)
    else:
        torch.save(content, folder / name)
    return folder


def run(
    checkpoint: Path, component: str, embeddings: Mapping[str, tuple[Path, str | None]], out: Path, encoders: list[str]
) -> Path:
    out.mkdir(parents=True)
    inputs = {"checkpoint": checkpoint / component} | {role: folder for role, (folder, _) in embeddings.items()}
    parameters: dict[str, Any] = {"component": component, "encoders": encoders}
    if component.startswith("tokenizer"):
        parameters["tokens"] = {role: token for role, (_, token) in embeddings.items()}
    else:
        inputs["tokenizer"] = out.parent / "tokenizer"
    embed.run(inputs, parameters, out, lambda _, __: None)
    return out


def embedded(
    checkpoint: Path, embeddings: Mapping[str, tuple[Path, str | None]], out: Path, encoders: list[str] = ONE
) -> DiffusersReader:
    """Tokenizer and text encoders with embeddings, in folders of `out`; the tokenizer as a bundle has it."""
    for component in ("tokenizer", *encoders):
        run(checkpoint, component, embeddings, out / component, encoders)
    return DiffusersReader(out / "tokenizer", inversions=textual_inversions(out / "tokenizer", [{}] * len(embeddings)))


def answers(folder: Path, component: str, ids: np.ndarray[Any, Any], family: str) -> tuple[torch.Tensor, ...]:
    """What our module says of token ids, which must be what the library's module says of the same folder."""
    model = build(component=component, checkpoint=folder / component, text_sequence_length=77, family=family)
    state = {name: torch.from_numpy(np.array(weight.read(), np.float32)) for name, weight in model.weights.items()}
    module = model.module.to_empty(device="cpu")
    module.load_state_dict(state)
    with torch.inference_mode():
        ours: tuple[torch.Tensor, ...] = module(torch.from_numpy(ids))
    theirs = reference(component, folder / component, family=family)(torch.from_numpy(ids))
    for mine, original in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, original, rtol=1e-4, atol=1e-5)
    return ours


def test_a_tiny_sd_says_what_diffusers_says(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = checkpoints("tiny-sd")
    toy = write(tmp_path / "toy", "learned_embeds.bin", {"<toy>": vectors(3)})
    style = write(tmp_path / "style", "mine.safetensors", {"emb_params": vectors(1)})
    tokenizer = embedded(checkpoint, {"embedding-1": (toy, None), "embedding-2": (style, "style-b")}, tmp_path / "out")
    pipe = StableDiffusionPipeline.from_pretrained(checkpoint, local_files_only=True)
    pipe.load_textual_inversion(toy)
    pipe.load_textual_inversion(style, weight_name="mine.safetensors", token="style-b")
    for prompt in PROMPTS:
        expected, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
        ids = tokenizer.clip(prompt, 77, "TextEncoder").ids
        hidden, _ = answers(tmp_path / "out", "text_encoder", ids, "sd1")
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)
    assert (ids < tiny.tokenizer.VOCABULARY_SIZE).all()


def test_a_tiny_sdxl_says_what_diffusers_says(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = checkpoints("tiny-sdxl")
    widths = [json.loads((checkpoint / name / "config.json").read_bytes())["hidden_size"] for name in BOTH]
    content = {"clip_l": vectors(2, widths[0]), "clip_g": vectors(2, widths[1])}
    toy = write(tmp_path / "toy", "toy.safetensors", content)
    tokenizer = embedded(checkpoint, {"embedding-1": (toy, "<toy>")}, tmp_path / "out", BOTH)
    pipe = StableDiffusionXLPipeline.from_pretrained(checkpoint, local_files_only=True)
    for key, name, encoder in (("clip_l", "tokenizer", BOTH[0]), ("clip_g", "tokenizer_2", BOTH[1])):
        loaded = getattr(pipe, encoder)
        pipe.load_textual_inversion(
            {"<toy>": content[key]}, token="<toy>", text_encoder=loaded, tokenizer=getattr(pipe, name)
        )
        # As it is, transformers would take the new token, whose id is the largest, for the end of the text.
        for module in loaded.modules():
            if hasattr(module, "eos_token_id"):
                module.eos_token_id = tiny.tokenizer.VOCABULARY_SIZE - 1
    for prompt in ("a photo of a <toy> on mars", "a fox, <toy>"):
        expected, _, pooled, _ = pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
        states = []
        for encoder, padding in zip(BOTH, ("<|endoftext|>", "!"), strict=True):
            ids = tokenizer.clip(prompt, 77, "TextEncoder2" if padding == "!" else "TextEncoder").ids
            states.append(answers(tmp_path / "out", encoder, ids, "sdxl"))
        torch.testing.assert_close(torch.cat([states[0][0], states[1][0]], -1), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(states[1][1], pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "prompt", ["a <toy> on mars", "<TOY>", "a fox and <toy> <toy>_1 in the forest", "a <toy>_1 cat"]
)
def test_ids_are_those_of_the_swift_package(prompt: str, checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    from sdbuild.pipeline.inversions import expand

    toy = write(tmp_path / "toy", "toy.pt", vectors(2))
    run(checkpoints("tiny-sd"), "tokenizer", {"embedding-1": (toy, "<Toy>")}, tmp_path / "tokenizer", ONE)
    inversions = textual_inversions(tmp_path / "tokenizer", [{}])
    vocabulary = json.loads((tmp_path / "tokenizer" / "vocab.json").read_bytes())
    swift = BytePairs((tmp_path / "tokenizer" / "merges.txt").read_text(encoding="utf-8"))
    tokens = swift.encode(expand(prompt, inversions))
    row = DiffusersReader(tmp_path / "tokenizer", inversions=inversions).clip(prompt, 77, "TextEncoder").ids
    assert [vocabulary[token] for token in tokens] == row[0, 1 : 1 + len(tokens)].tolist()
    assert row[0, 1 + len(tokens)] == vocabulary["<|endoftext|>"]
    assert inversions == [
        {"token": "<toy>", "vectors": 2, "changes": inversions[0]["changes"], "tokens": ("<toy>", "<toy>_1")}
    ]


FORMATS: dict[str, tuple[str, Callable[[torch.Tensor], Any]]] = {
    "diffusers": ("learned_embeds.bin", lambda v: {"<toy>": v}),
    "diffusers-safe": ("learned_embeds.safetensors", lambda v: {"<toy>": v}),
    "diffusers-flat": ("learned_embeds.safetensors", lambda v: {"<toy>": v[0]}),
    "a1111": (
        "toy.pt",
        lambda v: {"string_to_token": {"*": 265}, "string_to_param": {"*": v}, "name": "<toy>", "step": 9},
    ),
    "a1111-parameter": ("toy.bin", lambda v: {"string_to_param": {"*": torch.nn.Parameter(v)}, "name": "<toy>"}),
    "a1111-safe": ("toy.safetensors", lambda v: {"emb_params": v}),
    "tensor": ("toy.pt", lambda v: v),
    "half": ("toy.safetensors", lambda v: {"emb_params": v.half()}),
    "bfloat16": ("toy.pt", lambda v: {"<toy>": v.bfloat16()}),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind: str, checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    name, content = FORMATS[kind]
    given = content(vectors(1))
    toy = write(tmp_path / "toy", name, given)
    named = kind.startswith(("diffusers", "a1111")) and kind != "a1111-safe"
    embedded(checkpoints("tiny-sd"), {"embedding-1": (toy, None if named else "<toy>")}, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "tokenizer" / "textual_inversions.json").read_bytes())
    (weights,) = (tmp_path / "out" / "text_encoder").glob("*.safetensors")
    table = load_file(weights)["text_model.embeddings.token_embedding.weight"]
    (row,) = [index for index, row in enumerate(document["rows"]) if row["entry"] == "<toy></w>"]
    expected = vectors(1)[0]
    expected = (
        expected.half().float() if kind == "half" else expected.bfloat16().float() if kind == "bfloat16" else expected
    )
    assert torch.equal(table[document["first"] + row], expected)
    config = json.loads((tmp_path / "out" / "text_encoder" / "config.json").read_bytes())
    assert config["vocab_size"] == len(table) == document["first"] + config["added_tokens"]
    assert config["eos_token_id"] == document["first"] - 1


def test_nothing_else_changes_and_the_same_bytes_are_written_twice(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    toy = write(tmp_path / "toy", "toy.pt", vectors(2))
    for out in ("first", "second"):
        embedded(checkpoints("tiny-sd"), {"embedding-1": (toy, "<toy>")}, tmp_path / out)
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert all((tmp_path / "first" / path).read_bytes() == (tmp_path / "second" / path).read_bytes() for path in files)
    (old,) = (checkpoints("tiny-sd") / "text_encoder").glob("*.safetensors")
    before, after = load_file(old), load_file(tmp_path / "first" / "text_encoder" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(
            after[name][: len(tensor)] if name.endswith("token_embedding.weight") else after[name], tensor
        )


def test_samples_hold_the_new_tokens_and_end_where_texts_end(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    from sdbuild.models.samples import samples

    toy = write(tmp_path / "toy", "toy.pt", vectors(2))
    embedded(checkpoints("tiny-sd"), {"embedding-1": (toy, "<toy>")}, tmp_path / "out")
    arguments = {"component": "text_encoder", "text_sequence_length": 77, "family": None}
    scene = scene_of({"checkpoint": tmp_path / "out" / "text_encoder"}, arguments)
    size = tiny.tokenizer.VOCABULARY_SIZE
    assert scene.vocabulary == size
    model = build(checkpoint=tmp_path / "out" / "text_encoder", **arguments)
    for sample in samples(model.inputs, scene, steps=(1, 501, 981)):
        ids = sample["input_ids"]
        assert ids[0, 0] == size - 2
        assert ids[0, -1] == size - 1
        assert (ids >= size).sum() >= 3
        assert ids.max() < size + scene.new_tokens


FAULTS: dict[str, tuple[str, Any, str | None, str]] = {
    "nan": (
        "toy.pt",
        {"<toy>": torch.tensor([[1.0, float("nan")] * 32])},
        None,
        "<toy> holds values that are no numbers",
    ),
    "infinite": (
        "toy.safetensors",
        {"emb_params": torch.full((1, WIDTH), torch.inf)},
        "<toy>",
        "emb_params holds values",
    ),
    "width": ("toy.pt", {"<toy>": vectors(1, 1024)}, None, "those for SD 2.x have; text_encoder's have 64"),
    "integers": ("toy.pt", {"<toy>": torch.ones(1, WIDTH, dtype=torch.int64)}, None, "holds no vectors"),
    "empty": ("toy.safetensors", {}, "<toy>", "holds nothing"),
    "several": ("toy.safetensors", {"a": vectors(1), "b": vectors(2)}, None, "holds a, b. A textual inversion holds"),
    "for-sdxl": ("toy.safetensors", {"clip_l": vectors(1), "clip_g": vectors(1)}, "<toy>", "trained for SDXL"),
    "nameless": ("toy.safetensors", {"emb_params": vectors(1)}, None, "names no token; write one in the recipe"),
    "two-words": ("toy.pt", {"my toy": vectors(1)}, None, "its token 'my toy' is not one word"),
    "known-word": ("toy.pt", {"cat": vectors(1)}, None, "vocabulary has cat already"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_cannot_be_words(fault: str, checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    name, content, token, message = FAULTS[fault]
    toy = write(tmp_path / "toy", name, content)
    with pytest.raises((ModelError, BundleError, embed.EmbedError), match=f"embedding-1 .{name}.: .*{message}"):
        embedded(checkpoints("tiny-sd"), {"embedding-1": (toy, token)}, tmp_path / "out")


def test_sdxl_needs_vectors_for_both_encoders(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    alone = write(tmp_path / "alone", "toy.pt", {"<toy>": vectors(1)})
    first = write(tmp_path / "first", "toy.safetensors", {"clip_l": vectors(1)})
    uneven = write(tmp_path / "uneven", "toy.safetensors", {"clip_l": vectors(1), "clip_g": vectors(2)})
    for folder, message in (
        (alone, "no vectors for clip_l and clip_g; it has <toy>"),
        (first, "no vectors for clip_g; it has clip_l"),
        (uneven, "1 for clip_l, 2 for clip_g"),
    ):
        with pytest.raises(ModelError, match=message):
            embedded(
                checkpoints("tiny-sdxl"), {"embedding-1": (folder, "<toy>")}, tmp_path / f"{folder.name}-out", BOTH
            )


class Evil:
    """What a pickle could bring along."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_a_pickles_code_is_not_run(
    checkpoints: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").mkdir()
    for name, written in (
        ("zip.pt", lambda path: torch.save({"string_to_param": {"*": vectors(1)}, "name": Evil()}, path)),
        ("old.bin", lambda path: path.write_bytes(pickle.dumps({"<toy>": Evil()}))),
    ):
        folder = tmp_path / name
        folder.mkdir()
        written(folder / name)
        with pytest.raises(ModelError, match=r"more than tensors|cannot be read"):
            embedded(checkpoints("tiny-sd"), {"embedding-1": (folder, "<toy>")}, tmp_path / f"out-{name}")
    assert not (tmp_path / "executed").exists()


def test_words_that_travel_with_a_lora(tmp_path: Path) -> None:
    from sdbuild.checkpoints.textual_inversion import TextualInversion

    tensors = {f"bundle_emb.{word}.clip_l": vectors(2, seed=seed) for seed, word in enumerate(("toy", "my.style"))}
    lora = {f"lora_unet_conv_in.lora_{part}.weight": torch.zeros(1, 1) for part in ("down", "up")}
    path = write(tmp_path / "one", "mine.safetensors", tensors | lora) / "mine.safetensors"
    chosen = TextualInversion([path], "mine", "My.Style")
    assert chosen.name == "my.style"
    assert np.array_equal(chosen.vectors("text_encoder", ONE), vectors(2, seed=1).numpy())
    with pytest.raises(ModelError, match=r"mine: holds the words my.style, toy; say in the recipe which"):
        TextualInversion([path], "mine")
    outputs = write(tmp_path / "two", "x.safetensors", {"bundle_emb.toy.clip_l_out": vectors(2)}) / "x.safetensors"
    with pytest.raises(ModelError, match="toy has vectors for clip_l_out, which cannot be words"):
        TextualInversion([outputs], "mine")


@pytest.mark.parametrize("named", [True, False])
def test_a_file_for_each_text_encoder(named: bool, tmp_path: Path) -> None:
    from sdbuild.checkpoints.textual_inversion import TextualInversion

    keys = ("clip_l", "clip_g") if named else ("emb_params", "emb_params")
    paths = []
    for name, key, width in zip("ba", keys, (WIDTH, 96), strict=True):
        folder = write(tmp_path / name, f"{name}.safetensors", {key: vectors(2, width)})
        paths.insert(0, folder / f"{name}.safetensors")
    both = TextualInversion(paths, "mine")
    for component, width in zip(BOTH, (WIDTH, 96), strict=True):
        assert np.array_equal(both.vectors(component, BOTH), vectors(2, width).numpy())
    with pytest.raises(ModelError, match=r"both files hold vectors of one width|has no vectors for clip_g"):
        TextualInversion([paths[0], paths[0]], "mine").vectors("text_encoder", BOTH)
