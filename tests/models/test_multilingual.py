"""The multilingual projection does what its TorchScript module does, and nothing else passes for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sdbuild.models.build import build
from sdbuild.models.errors import ModelError
from sdbuild.models.multilingual import FILE
from sdbuild.models.original import reference
from sdbuild.models.parity import psnr


def saved(module: nn.Module, folder: Path) -> Path:
    torch.jit.script(module).save(str(folder / FILE))
    return folder


class Turned(nn.Module):
    """A module that already gives the UNet's layout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(512, 24, bias=False)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.layer(embeddings).transpose(1, 2).unsqueeze(2)


@pytest.mark.parametrize("module", [nn.Linear(512, 32), Turned().half()], ids=["plain", "in the UNet's layout"])
def test_it_is_the_module(module: nn.Module, tmp_path: Path) -> None:
    checkpoint = saved(module, tmp_path)
    model = build("multilingual_projection", checkpoint)
    (output,) = model.outputs
    assert [(spec.name, spec.shape) for spec in model.inputs] == [("nlcontextualembeddings_output", (1, 256, 512))]
    embeddings = torch.randn(1, 256, 512)
    (ours,) = model.materialise()(embeddings)
    (theirs,) = reference("multilingual_projection", checkpoint)(embeddings)
    assert ours.shape == theirs.shape == output.shape
    assert psnr(theirs, ours) > 100


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(300, 32), "takes 300 numbers"),
        (nn.Sequential(nn.Linear(512, 64), nn.Linear(64, 32)), "is one linear layer"),
        (nn.ReLU(), "holds nothing"),
    ],
)
def test_other_modules_are_refused(module: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        build("multilingual_projection", saved(module, tmp_path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="no TorchScript"):
        build("multilingual_projection", tmp_path)
