"""The trained model as it is shipped: its files, its pictures and its ControlNet."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open

from sdbuild.builtin.shapes import CHECKPOINT, CONTROLNET
from sdbuild.checkpoints.facts import read_checkpoint_facts
from sdbuild.shapes.drawing import picture
from sdbuild.shapes.evaluate import by_diffusers, flagged, judge, on_outline, questions
from sdbuild.shapes.scenes import FORBIDDEN, describe, sample


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_it_is_small_and_in_half_precision() -> None:
    assert size(CHECKPOINT) <= 12_000_000
    assert size(CONTROLNET) <= 4_000_000
    for path in [*CHECKPOINT.rglob("*.safetensors"), *CONTROLNET.rglob("*.safetensors")]:
        with safe_open(path, framework="numpy") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} <= {"F16", "I64"}, path  # noqa: SIM118


def test_it_has_the_topology_of_sd_1() -> None:
    facts = read_checkpoint_facts(CHECKPOINT)
    assert facts.family == "sd1"
    unet = json.loads((CHECKPOINT / "unet" / "config.json").read_text())
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert (unet["in_channels"], unet["out_channels"]) == (4, 4)
    vae = json.loads((CHECKPOINT / "vae" / "config.json").read_text())
    assert (len(vae["block_out_channels"]), vae["latent_channels"], vae["scaling_factor"]) == (4, 4, 0.18215)
    vocabulary = json.loads((CHECKPOINT / "tokenizer" / "vocab.json").read_text())
    assert json.loads((CHECKPOINT / "text_encoder" / "config.json").read_text())["vocab_size"] == len(vocabulary)


def test_its_tokenizer_knows_the_words_of_its_sentences() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(CHECKPOINT / "tokenizer")
    random = np.random.default_rng(11)
    for _ in range(50):
        text = describe(sample(random, unseen=True), random).text
        tokens = tokenizer.tokenize(text)
        assert len(tokens) == len(text.replace(",", " ,").split())
    # Whatever else is asked falls apart into bytes, and is never unknown.
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize("größer")) != []


def test_latents_have_the_scale_of_sd_1() -> None:
    import torch
    from diffusers import AutoencoderKL

    from sdbuild.shapes.training.autoencoder import encode
    from sdbuild.shapes.training.data import scene

    model = AutoencoderKL.from_pretrained(CHECKPOINT / "vae")
    latents = encode(model, [scene(number)[0] for number in range(300)])
    assert latents.std((0, 2, 3)).sub(1).abs().max() < 0.15
    assert latents.mean((0, 2, 3)).abs().max() < 0.15
    assert torch.isfinite(latents).all()


def test_it_draws_what_it_never_saw() -> None:
    asked = questions(24)
    shares = judge(asked, by_diffusers(asked, 20, controlled=False), controlled=False)
    assert shares["right"] >= 0.75, shares
    assert shares["colour"] >= 0.85, shares


def test_its_controlnet_follows_outlines() -> None:
    asked = questions(12)
    controlled = judge(asked, by_diffusers(asked, 20, controlled=True), controlled=True)
    free = judge(asked, by_diffusers(asked, 20, controlled=False), controlled=True)
    assert controlled["on the outline"] >= 0.8, controlled
    assert free["on the outline"] <= 0.5, free


def test_its_safety_checker_finds_crosses() -> None:
    scenes = [question.scene for question in questions(96)]
    found = flagged([Image.fromarray(picture(scene)) for scene in scenes])
    crosses = [scene.shape == FORBIDDEN for scene in scenes]
    assert sum(crosses) >= 8
    assert np.mean(np.equal(found, crosses)) >= 0.94, list(zip(found, scenes, strict=True))


def test_pictures_follow_their_outline_and_no_other() -> None:
    random = np.random.default_rng(9)
    one, other = sample(random), sample(random)
    assert on_outline(picture(one), one) > on_outline(picture(other), one)
