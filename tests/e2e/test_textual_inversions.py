"""A textual inversion through the real program: a word that the bundle's own files reach, verified and drawn."""

import json
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from sdbuild.bundle.byte_pairs import BytePairs
from tests.e2e.program import PHONE, Workspace

BUILD = ("recipe=phone",)
PROMPTS = ("a <cat-toy> on mars", "a <cat-toy> <cat-toy>_1 on mars", "a fox on mars")


def write_embedding(workspace: Workspace, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    save_file({"<Cat-Toy>": torch.randn(2, 64, generator=generator)}, workspace.folder / "toy.safetensors")


def test_a_textual_inversion_is_built_verified_linted_and_drawn(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work", tmp_path / "cache")
    workspace.folder.mkdir()
    write_embedding(workspace, 1)
    workspace.recipe(PHONE, textual_inversions="[{version: ../toy.safetensors}]")
    ran = workspace(*BUILD)
    assert ran.status == 0, ran.err
    assert "verify:convert-text_encoder" in ran.executed
    assert workspace("lint", *BUILD).status == 0
    bundle = workspace.bundle()
    document = json.loads((bundle / "bundle.json").read_bytes())
    (inversion,) = document["textual_inversions"]
    assert inversion["tokens"] == ["<cat-toy>", "<cat-toy>_1"]
    assert inversion["version"] == "toy.safetensors"
    swift = BytePairs((bundle / "Resources" / "merges.txt").read_text(encoding="utf-8"))
    assert swift.encode("a <Cat-Toy> <cat-toy>_1 on mars")[1:3] == ["<cat-toy></w>", "<cat-toy>_1</w>"]
    (workspace.folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    drawn = workspace("generate", *BUILD, "prompts=prompts.txt", "steps=2", "guidance_scale=1")
    assert drawn.status == 0, drawn.err
    first, second, third = ((workspace.folder / path).read_bytes() for path in drawn.out.splitlines())
    assert _pixels(first) == _pixels(second), "a word of two vectors is written out"
    assert _pixels(first) != _pixels(third)
    assert workspace(*BUILD).executed == []
    write_embedding(workspace, 2)
    again = workspace(*BUILD, "verify=off")
    assert again.status == 0, again.err
    # The word is the same, so that the tokenizer's new files are those of before.
    assert again.executed == [
        *("bundle:iphone-15-pro", "convert:text_encoder", "embed:text_encoder", "embed:tokenizer"),
    ]


def _pixels(picture: bytes) -> bytes:
    return Image.open(BytesIO(picture)).tobytes()
