"""Every replacement of a private part of a library: described, known, tested by name, and not missed when left out."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdbuild.coreml.convert import convert
from sdbuild.coreml.lowering import patches
from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.coreml.lowering.patches import patch as patch_module
from sdbuild.known_source import KnownSource, current_digest, digest
from sdbuild.tensors import TensorSpec
from tests.coreml.stock import unknown
from tests.coreml.test_convert_constants import Stored

PATCHES = patches.all_patches()
CHECKOUT = Path(__file__).parents[2]
PUBLIC = {"numpy_constructors"}
"""Replacements of nothing but public functions, which have no source that could be another."""


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.einsum("bqc,bkc->bqk", self.first(x), x).softmax(-1)
        return nn.functional.gelu(self.second(torch.einsum("bqk,bkc->bqc", weights, x)), approximate="tanh") + x


class _Model(nn.Module):
    """What the replacements are about: blocks that repeat, einsums, weights of either side of what is small, a list."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.leave = nn.Linear(8, 600)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.norm(self.enter(x)).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        first, second = self.leave(x).chunk(2, dim=-1)
        return (torch.cat([second, first * 1e-9], dim=-1),)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(3)
    weights = {name: Stored(value.numpy(), name) for name, value in _Model().state_dict().items()}
    folder = tmp_path_factory.mktemp("patches")

    def converted(name: str) -> dict[str, str]:
        with torch.device("meta"):
            model = _Model().eval()
        inputs, outputs = [TensorSpec("x", (1, 4, 4, 4), "float16")], [TensorSpec("y", (1, 16, 600), "float32")]
        out = folder / name / "Model.mlpackage"
        convert(model, inputs, outputs, weights, out, precision="float16", deployment_target="iOS16")
        files = sorted(path for path in out.parent.rglob("*") if path.is_file())
        return {str(path.relative_to(out.parent)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return converted, converted("all")


@pytest.mark.parametrize("name", PATCHES)
def test_a_replacement_says_what_it_is(name: str) -> None:
    patch = PATCHES[name]
    assert all((patch.name, patch.why, patch.without))
    assert bool(patch.sources) != (name in PUBLIC)
    file, _, test = patch.equality_test.partition("::")
    assert not test or re.search(rf"^def {test}\(", (CHECKOUT / file).read_text(), re.MULTILINE), patch.equality_test
    assert (CHECKOUT / file).is_file()


@pytest.mark.parametrize("name", PATCHES)
def test_the_installed_libraries_are_known(name: str) -> None:
    strange = [f"{s}: {current_digest(s.module, s.name)}" for s in PATCHES[name].sources if not s.is_known()]
    assert not strange, (
        f"read what has changed in {strange}, run {PATCHES[name].equality_test}, and add the digest to {name}.py"
    )


@pytest.mark.parametrize("name", [name for name in PATCHES if name not in PUBLIC])
def test_without_a_replacement_the_package_is_the_same_or_there_is_none(
    name: str, scene: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converted, expected = scene
    monkeypatch.setattr(patch_module, "_told", set())
    module = importlib.import_module(f"sdbuild.coreml.lowering.patches.{name}")
    monkeypatch.setattr(module, "PATCH", unknown(PATCHES[name]))
    if PATCHES[name].required:
        with pytest.raises(ConversionError, match=f"nothing_that_exists is not the function .*'{PATCHES[name].name}'"):
            converted(name)
        return
    capsys.readouterr()
    assert converted(name) == expected
    said = [line for line in capsys.readouterr().err.splitlines() if "is not the function that sdbuild knows" in line]
    assert said == [
        f"coremltools {_version()}: coremltools.nothing_that_exists is not the function that sdbuild knows; "
        f"'{PATCHES[name].name}' is left out: {PATCHES[name].without}"
    ]


def _version() -> str:
    return importlib.import_module("importlib.metadata").version("coremltools")


def test_only_code_counts_for_a_digest() -> None:
    source = "    def f(x):\n        # why\n        return x\n"
    assert digest(source) == digest("def f(x):\n\n    return x   \n")
    assert digest(source) != digest(source.replace("return x", "return -x"))


def test_a_function_that_is_gone_is_not_known() -> None:
    assert not KnownSource("torch.nothing", "f", ("0",)).is_known()
    assert not KnownSource("torch", "nothing", ("0",)).is_known()
    assert not KnownSource("numpy", "array", ("0",)).is_known(), "what has no Python source cannot be compared"
