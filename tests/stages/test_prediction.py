"""The prediction stage: tables for checkpoints whose velocity becomes noise, nothing at all for all others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdbuild.builtin import tiny
from sdbuild.prediction import read_tables
from sdbuild.stages import prediction


def made(index: Path, out: Path) -> list[str]:
    out.mkdir()
    prediction.run({"index": index}, {}, out, lambda fraction, message: None)
    return [path.name for path in out.iterdir()]


def test_velocity_gets_tables(tmp_path: Path) -> None:
    tiny.generate("tiny-sd2", tmp_path, ["", "scheduler"])
    assert made(tmp_path, tmp_path / "out") == ["prediction.json"]
    alphas, sigmas = read_tables(tmp_path / "out")
    assert len(alphas) == len(sigmas) == 1000
    assert all(abs(alpha**2 + sigma**2 - 1) < 1e-12 for alpha, sigma in zip(alphas, sigmas, strict=True))


@pytest.mark.parametrize(
    "changes", [{"prediction_type": "epsilon"}, {"rescale_betas_zero_snr": True}, {"beta_end": 0.02}]
)
def test_all_others_get_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    tiny.generate("tiny-sd2", tmp_path, ["", "scheduler"])
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert made(tmp_path, tmp_path / "out") == []


def test_a_checkpoint_without_a_scheduler_predicts_noise(tmp_path: Path) -> None:
    assert made(tmp_path, tmp_path / "out") == []
