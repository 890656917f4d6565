"""Noise, tokens, pictures and names: what a drawing is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdbuild.pipeline import RequestError, pictures
from sdbuild.pipeline.condition import guidance_embedding, time_ids
from sdbuild.pipeline.noise import noise_source
from sdbuild.pipeline.schedulers import scheduler_name
from sdbuild.pipeline.text import Tokenizer
from tests.pipeline.originals import PROMPT, photograph
from tests.pipeline.studio import Studio

SHAPE = (1, 4, 16, 8)


@pytest.mark.parametrize("seed", [0, 93, 2**32 - 1])
def test_numpys_noise_is_the_legacy_generators(seed: int) -> None:
    source, state = noise_source("numpy", seed), np.random.RandomState(seed)
    for _ in range(3):
        np.testing.assert_array_equal(source.normal(SHAPE), state.normal(size=SHAPE).astype(np.float32))


@pytest.mark.parametrize("seed", [0, 93, 2**32 - 1])
def test_torchs_noise_is_randn(seed: int) -> None:
    source, generator = noise_source("torch", seed), torch.Generator().manual_seed(seed)
    for _ in range(3):
        np.testing.assert_array_equal(source.normal(SHAPE), torch.randn(SHAPE, generator=generator).numpy())


@pytest.mark.parametrize(("recipe", "checkpoint"), [("sd", "flagging"), ("sd2", "sd2")])
def test_tokens_are_those_of_the_checkpoints_tokenizer(studio: Studio, recipe: str, checkpoint: str) -> None:
    from transformers import CLIPTokenizer

    from sdbuild.pipeline import Pipeline

    bundle = Pipeline.from_bundle(studio.bundle(recipe)).bundle
    ((_, padding),) = bundle.text_encoders()
    ours = Tokenizer(bundle.resources)
    theirs = CLIPTokenizer.from_pretrained(studio.root / "checkpoints" / checkpoint / "tokenizer")
    for text in ("", PROMPT, "Zürich, 7 o'clock: ünïcode — 猫 🐈?", "many words " * 60):
        expected = theirs(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert ours.ids(text, 77, padding)[0].tolist() == [expected]


def test_an_exclamation_mark_is_a_word_even_where_it_is_the_padding_too(studio: Studio) -> None:
    """Transformers takes it for padding; the Swift package and the encoders' training do not."""
    first, second = (Tokenizer(studio.bundle(recipe) / "Resources") for recipe in ("sd", "sd2"))
    written, padded = first.ids("a fox!", 8, "<|endoftext|>")[0][0], second.ids("a fox!", 8, "!")[0][0]
    assert written[:5].tolist() == padded[:5].tolist()
    assert padded[5:].tolist() == [0, 0, 0]


def test_sdxls_second_encoder_is_padded_with_an_exclamation_mark(studio: Studio) -> None:
    from transformers import CLIPTokenizer

    from sdbuild.pipeline import Pipeline

    bundle = Pipeline.from_bundle(studio.bundle("sdxl")).bundle
    ours = Tokenizer(bundle.resources)
    folders = {"TextEncoder": "tokenizer", "TextEncoder2": "tokenizer_2"}
    for encoder, padding in bundle.text_encoders():
        theirs = CLIPTokenizer.from_pretrained(studio.checkpoint("tiny-sdxl") / folders[encoder])
        expected = theirs(PROMPT, padding="max_length", max_length=77).input_ids
        assert ours.ids(PROMPT, 77, padding)[0].tolist() == [expected]


def test_the_end_of_a_long_text_is_told(studio: Studio) -> None:
    ids, lost = Tokenizer(studio.bundle("sd") / "Resources").ids("a " * 75 + "red fox", 77, "<|endoftext|>")
    assert ids.shape == (1, 77)
    assert lost.strip() == "red fox"


def test_sizes_for_sdxl_and_its_refiner() -> None:
    assert time_ids(6, 768, 512).tolist() == [[768, 512, 0, 0, 768, 512]] * 2
    assert time_ids(5, 768, 512).tolist() == [[768, 512, 0, 0, 2.5], [768, 512, 0, 0, 6.0]]


@pytest.mark.parametrize("width", [16, 17, 256])
def test_the_guidance_embedding_is_diffusers(width: int) -> None:
    from diffusers import LatentConsistencyModelPipeline

    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, torch.tensor([7.5]), width)
    np.testing.assert_allclose(guidance_embedding(7.5, width), theirs.numpy(), atol=1e-3)


@pytest.mark.parametrize("size", [(64, 128), (300, 224), (500, 333), (224, 224)])
def test_clips_picture_is_the_feature_extractors(size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessor

    picture = photograph().resize(size)
    expected = CLIPImageProcessor()(picture, return_tensors="np").pixel_values
    np.testing.assert_allclose(pictures.to_clip(picture, 224), expected, atol=1e-5)


def test_a_picture_survives_the_way_to_arrays_and_back() -> None:
    picture = photograph()
    back = pictures.from_signed(pictures.to_signed(picture, picture.height, picture.width))
    np.testing.assert_array_equal(np.asarray(back), np.asarray(picture))


@pytest.mark.parametrize(
    ("prompt", "index", "name"),
    [
        ("a photo of a fox", None, "a_photo_of_a_fox.93.png"),
        ("a photo of a fox", 1, "a_photo_of_a_fox.1.93.png"),
        ("../../etc/passwd\n", None, "etc_passwd.93.png"),
        ("", None, "picture.93.png"),
        ("word " * 40, None, "word_" * 14 + "word.93.png"),
        ("猫" * 80, None, "猫" * 66 + ".93.png"),
    ],
)
def test_file_names(prompt: str, index: int | None, name: str) -> None:
    assert pictures.file_name(prompt, 93, index=index) == name
    assert len(name.encode()) < 255


def test_metadata_of_a_png(tmp_path: Path) -> None:
    story = {"prompt": "a 猫,\nsitting", "negative_prompt": "", "seed": "93", "bundle": "ab" * 32}
    pictures.save(photograph(), tmp_path / "cat.png", story)
    with Image.open(tmp_path / "cat.png") as saved:
        assert {key: str(saved.info[key]) for key in story} == story
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]


def test_a_camera_picture_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert pictures.open_picture(tmp_path / "turned.jpg").size == (20, 40)


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(RequestError, match=r"notes\.txt: this is no picture"):
        pictures.open_picture(tmp_path / "notes.txt")
    with pytest.raises(RequestError, match="no such picture"):
        pictures.open_picture(tmp_path / "none.png")


def test_a_schedulers_name_in_the_metadata() -> None:
    assert scheduler_name("default", {"_class_name": "PNDMScheduler"}) == "pndm"
    assert scheduler_name("default", {"_class_name": "HeunDiscreteScheduler"}) == "default (HeunDiscreteScheduler)"
    assert scheduler_name("euler", {"_class_name": "PNDMScheduler"}) == "euler"
