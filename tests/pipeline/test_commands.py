"""`generate` and `diagnose` as people type them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdbuild import cli
from tests.pipeline.originals import PROMPT, edges, photograph
from tests.pipeline.studio import Studio

Ran = tuple[int, str, str]


@pytest.fixture
def run(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(studio.cache))

    def command(*words: str) -> Ran:
        capfd.readouterr()
        status = cli.main(list(words))
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return command


def test_pictures_are_written_and_named(studio: Studio, run: Any, tmp_path: Path) -> None:
    studio.bundle("sd")
    status, out, err = run(
        "generate", *studio.words("sd"), f"prompt={PROMPT}", "seed=93", "steps=2", "image_count=2", "safety=off"
    )
    assert status == 0, err
    name = PROMPT.replace(" ", "_")
    assert out.splitlines() == [f"pictures/{name}.0.93.png", f"pictures/{name}.1.93.png"]
    assert "of 6" in err, "progress is told on standard error"
    with Image.open(out.splitlines()[0]) as picture:
        assert picture.info["prompt"] == PROMPT
        assert picture.info["bundle"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [f"{name}.{n}.93.png" for n in (0, 1)]


def test_prompts_of_a_file_that_begin_alike(studio: Studio, run: Any, tmp_path: Path) -> None:
    studio.bundle("sd")
    start = "a " * 40
    (tmp_path / "prompts.txt").write_text(f"{start}fox\n\n{start}boat\n")
    words = ("prompts=prompts.txt", "steps=2", "safety=off", "pictures=drawn", "reduce_memory=on")
    status, out, err = run("generate", *studio.words("sd"), *words)
    assert status == 0, err
    assert len(set(out.splitlines())) == 2
    assert all(Path(line).is_file() for line in out.splitlines())


def test_image_to_image_and_the_safety_checker(studio: Studio, run: Any, tmp_path: Path) -> None:
    studio.bundle("sd")
    photograph().save("start.png")
    status, out, err = run(
        "generate", *studio.words("sd"), "prompt=a fox", "image=start.png", "strength=0.6", "steps=2"
    )
    assert status == 0, err
    assert "the safety checker flagged this picture" in err
    with Image.open(out.strip()) as picture:
        assert (picture.info["strength"], picture.info["flagged"]) == ("0.6", "true")


@pytest.mark.parametrize("given", ["edges.png,photo.png", "TinyControlnet:photo.png,Edges:edges.png"])
def test_controlnet_pictures_by_order_and_by_name(studio: Studio, run: Any, given: str) -> None:
    studio.bundle("sd-controlled")
    photograph().save("photo.png")
    edges().save("edges.png")
    words = ("prompt=a fox", "steps=2", f"controlnet_image={given}", "precision=fp16")
    status, out, err = run("generate", *studio.words("sd-controlled"), *words)
    assert status == 0, err
    with Image.open(out.strip()) as picture:
        assert sorted(picture.info["controlnets"].split(", ")) == ["Edges", "TinyControlnet"]


@pytest.mark.parametrize("given", ["edges.png,photo.png", "TinyT2IAdapter:edges.png,TinyT2IAdapterLight:photo.png"])
def test_t2i_adapters_pictures_and_their_weights(studio: Studio, run: Any, given: str) -> None:
    studio.bundle("sd-adapted")
    photograph().save("photo.png")
    edges().save("edges.png")
    words = ("prompt=a fox", "steps=1", f"adapter_image={given}", "adapter_conditioning_scale=1,0.4")
    status, out, err = run("generate", *studio.words("sd-adapted"), *words)
    assert status == 0, err
    with Image.open(out.strip()) as picture:
        assert picture.info["t2i_adapters"] == "TinyT2IAdapter, TinyT2IAdapterLight"
        assert picture.info["adapter_conditioning_scale"] == "1, 0.4"


def test_too_many_controlnet_pictures(studio: Studio, run: Any) -> None:
    studio.bundle("sd")
    edges().save("edges.png")
    status, _, err = run("generate", *studio.words("sd"), "prompt=a fox", "controlnet_image=edges.png")
    assert status == 2
    assert "1 pictures for 0 ControlNets" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], 'give either prompt="…" or prompts=FILE'),
        (["prompt=a", "prompts=b"], "give either"),
        (["prompts=none.txt"], "prompts=none.txt: cannot be read"),
        (["prompt=a", "sead=1"], "did you mean 'seed'?"),
        (["prompt=a", "steps=many"], "steps=many: a whole number is needed"),
        (["prompt=a", "steps=0"], "at least one step"),
        (["prompt=a", "guidance_scale=x"], "a number is needed"),
        (["prompt=a", "scheduler=eulr"], "did you mean 'euler'?"),
        (["prompt=a", "client=diffuser"], "client=diffuser: no such client; did you mean 'diffusers'?"),
        (["prompt=a", "rng=nvdia"], "did you mean 'nvidia'?"),
        (["prompt=a", "configuration=originalSiz:768"], "did you mean 'originalSize'?"),
        (["prompt=a", "configuration=originalSize"], "write NAME:VALUE, such as originalSize:1024"),
        (["prompt=a", "image=none.png"], "no such picture"),
        (["prompt=a", "strength=0.5"], "there is no image="),
        (["prompt=a", "precision=fp8"], "precision=fp8: write fp32 or fp16"),
        (["prompt=a", "safety=never"], "write on or off"),
        (["prompt=a", "seed="], "'seed=' has no value"),
        (["prompt=a", "controlnet_image=none.png"], "no such picture"),
        (["prompt=a", "adapter_image=none.png"], "no such picture"),
        (["prompt=a", "adapter_conditioning_scale=1"], "there is no adapter_image="),
        (
            ["prompt=a", "adapter_image=a", "adapter_conditioning_scale=x"],
            "a number is needed, or one for each picture",
        ),
        (["prompt=a", "recipe=tiny-sf"], "did you mean"),
        (["prompt=a", "target=iphone-15-por"], "did you mean 'iphone-15-pro'?"),
        (["prompt=a", "extra"], "unknown word 'extra'"),
    ],
)
def test_mistakes_are_status_2_before_anything_is_built(run: Any, words: list[str], message: str) -> None:
    status, out, err = run("generate", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_bundle_that_is_not_there_is_built(studio: Studio, run: Any, tmp_path: Path) -> None:
    studio.bundle("sd-chunked")
    recipe, _ = studio.words("sd-chunked")
    words = ("prompt=a fox", "steps=2", "verify=off", "out=elsewhere")
    status, out, err = run("generate", recipe, *words)
    assert status == 0, err
    assert out == "pictures/a_fox.0.png\n", "what the build says goes to standard error"
    assert list(tmp_path.glob("elsewhere/sd-chunked/*/bundle.json"))


def test_a_build_that_fails_ends_the_command(studio: Studio, run: Any, tmp_path: Path) -> None:
    """The checkpoint's configuration does not fit its weights, which is told of every tensor before they are used."""
    studio.bundle("sd-chunked")
    shutil.copytree(studio.checkpoint("tiny-sd"), tmp_path / "checkpoint")
    configuration = tmp_path / "checkpoint/text_encoder/config.json"
    configuration.write_text(configuration.read_text().replace('"intermediate_size": 128', '"intermediate_size": 96'))
    recipe, _ = studio.words("sd-chunked")
    status, out, err = run("generate", recipe, "source=checkpoint", "verify=off", "prompt=a fox")
    assert (status, out) == (2, ""), err
    assert "`text_model.encoder.layers.0.mlp.fc1.bias`: has the shape [128], the configuration asks for [96]" in err
    assert err.endswith("could not be built; see above\n")


def test_diagnose_shows_where_signal_is_lost(studio: Studio, run: Any) -> None:
    studio.make("sd-half", "convert:text_encoder", "reference:text_encoder")
    status, out, err = run("diagnose", *studio.words("sd-half"), "component=text_encoder", "most=5")
    assert status == 0, err
    heading, *rows, total = out.splitlines()
    assert heading.split("  ")[0] == "module"
    assert len(rows) == 5
    assert any(row.startswith("text_model.") for row in rows)
    assert "last_hidden_state" in total
    assert "0 of them overflow" in total


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say which component"),
        (["component=unte"], "did you mean 'unet'?"),
        (["component=unet", "most=0"], "most=0: a whole number from 1"),
        (["component=unet", "mots=5"], "did you mean 'most'?"),
    ],
)
def test_mistakes_of_diagnose(run: Any, words: list[str], message: str) -> None:
    status, out, err = run("diagnose", *words)
    assert (status, out) == (2, "")
    assert message in err
