"""Tokens, pictures and names: what a drawing is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdbuild.bundle.document import read_document
from sdbuild.pipeline import PipelineError, RequestError, pictures
from sdbuild.pipeline.clients.diffusers.prompts import DiffusersReader
from sdbuild.pipeline.clients.diffusers.schedulers import scheduler_name
from sdbuild.pipeline.condition import geometry, guidance_embedding
from tests.pipeline.originals import PROMPT, photograph
from tests.pipeline.studio import Studio


@pytest.mark.parametrize(
    ("recipe", "checkpoint", "padding"), [("sd", "flagging", "<|endoftext|>"), ("sd2", "sd2", "!")]
)
def test_tokens_are_those_of_the_checkpoints_tokenizer(
    studio: Studio, recipe: str, checkpoint: str, padding: str
) -> None:
    from transformers import CLIPTokenizer

    bundle = studio.bundle(recipe)
    assert read_document(bundle)["tokenizer"]["padding_token"] == padding
    ours = DiffusersReader(bundle / "Resources", padding)
    theirs = CLIPTokenizer.from_pretrained(studio.root / "checkpoints" / checkpoint / "tokenizer")
    for text in ("", PROMPT, "Zürich, 7 o'clock: ünïcode — 猫 🐈?", "many words " * 60):
        expected = theirs(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert ours.clip(text, 77, "TextEncoder").ids.tolist() == [expected]


def test_an_exclamation_mark_is_a_word_even_where_it_is_the_padding_too(studio: Studio) -> None:
    """Transformers takes it for padding; the encoders' training does not."""
    first, second = (
        DiffusersReader(studio.bundle(recipe) / "Resources", padding).clip("a fox!", 8, "TextEncoder").ids[0]
        for recipe, padding in (("sd", "<|endoftext|>"), ("sd2", "!"))
    )
    assert first[:5].tolist() == second[:5].tolist()
    assert second[5:].tolist() == [0, 0, 0]


def test_sdxls_second_encoder_is_padded_with_an_exclamation_mark(studio: Studio) -> None:
    from transformers import CLIPTokenizer

    ours = DiffusersReader(studio.bundle("sdxl") / "Resources")
    for encoder, folder in (("TextEncoder", "tokenizer"), ("TextEncoder2", "tokenizer_2")):
        theirs = CLIPTokenizer.from_pretrained(studio.checkpoint("tiny-sdxl") / folder)
        expected = theirs(PROMPT, padding="max_length", max_length=77).input_ids
        assert ours.clip(PROMPT, 77, encoder).ids.tolist() == [expected]


def test_the_end_of_a_long_text_is_told(studio: Studio) -> None:
    found = DiffusersReader(studio.bundle("sd") / "Resources").clip("a " * 75 + "red fox", 77, "TextEncoder")
    assert found.ids.shape == (1, 77)
    (remark,) = found.remarks
    assert remark.startswith("TextEncoder takes 77 tokens; this end of the text was left out: 'red fox")


def test_sizes_for_sdxl_and_its_refiner() -> None:
    given: Any = ((768, 512, 0, 0), (640, 384), (2.5, 6.0))
    assert geometry(6, *given).tolist() == [[768, 512, 0, 0, 640, 384]] * 2
    assert geometry(5, *given).tolist() == [[768, 512, 0, 0, 2.5], [768, 512, 0, 0, 6.0]]
    with pytest.raises(PipelineError, match="time_ids has 4 values"):
        geometry(4, *given)


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
