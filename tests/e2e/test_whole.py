"""The recipes that come along, through every stage with verification."""

import json
from pathlib import Path

import pytest

from tests.e2e.program import Workspace

EXPECTED = {
    "tiny-sd": {"TextEncoder", "UnetChunk1", "UnetChunk2", "VAEDecoder", "VAEEncoder", "SafetyChecker"},
    "tiny-sdxl": {"TextEncoder", "TextEncoder2", "UnetChunk1", "UnetChunk2", "VAEDecoder", "VAEEncoder"},
    "tiny-sd-inpaint": {"TextEncoder", "UnetChunk1", "UnetChunk2", "VAEDecoder", "VAEEncoder", "SafetyChecker"},
    "tiny-lcm": {"TextEncoder", "UnetChunk1", "UnetChunk2", "VAEDecoder", "VAEEncoder", "SafetyChecker"},
    "tiny-sdxl-refined": {
        *("TextEncoder", "TextEncoder2", "UnetChunk1", "UnetChunk2", "UnetRefinerChunk1", "UnetRefinerChunk2"),
        *("VAEDecoder", "VAEEncoder"),
    },
    "tiny-controlnet": {
        *("TextEncoder", "UnetChunk1", "UnetChunk2", "ControlledUnetChunk1", "ControlledUnetChunk2"),
        *("VAEDecoder", "VAEEncoder", "SafetyChecker"),
    },
}


@pytest.mark.large
@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recipe_that_comes_along_is_built_and_verified(recipe: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work", tmp_path / "cache")
    workspace.folder.mkdir()
    ran = workspace(f"recipe={recipe}")
    assert ran.status == 0, ran.err
    lint = workspace("lint", f"recipe={recipe}")
    assert lint.status == 0, lint.err
    bundle = workspace.bundle(recipe)
    names = {path.name.removesuffix(".mlpackage") for path in (bundle / "Resources").glob("*.mlpackage")}
    assert names == EXPECTED[recipe]
    assert bool(list((bundle / "Resources").glob("controlnet/*.mlpackage"))) == (recipe == "tiny-controlnet")
    assert json.loads((bundle / "bundle.json").read_text())["verified"]
    assert workspace(f"recipe={recipe}").executed == []
