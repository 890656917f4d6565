"""Mistakes and failures: what is said, with what exit status, and what is left behind."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from sdbuild.builtin import tiny
from tests.e2e.program import PHONE, Workspace, content

WEIGHTS = "text_encoder/model.safetensors"
BUILD = ("recipe=phone", "verify=off")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in checkpoint as a directory of the user's."""
    folder = tmp_path_factory.mktemp("user") / "my-model"
    tiny.generate("tiny-sd", folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"components": "[text_encoder, unett, vae_decoder]"}, "unett"),
        ({"attention_implementation": "ORIGINAL"}, "original-on-neural-engine"),
        ({"quantisation": "{unet: 6}"}, "quantization"),
        ({"targets": "[iphone-15-por]"}, "iphone-15-pro"),
    ],
)
def test_a_bad_recipe_is_refused_and_nothing_is_written(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    workspace = Workspace(tmp_path / "work", tmp_path / "cache")
    workspace.recipe(PHONE, **changes)
    before = content(workspace.folder)
    ran = workspace("recipe=phone")
    assert ran.status == 2
    assert re.search(r"recipes/phone\.yaml:\d+:\d+: ", ran.err)
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert content(workspace.folder) == before
    assert not workspace.cache.exists()


def test_a_failing_stage_names_itself_and_its_log(phone: Workspace, checkpoint: Path) -> None:
    weights = checkpoint / WEIGHTS
    sound = weights.read_bytes()
    # No header tells that a weight is infinite.
    weights.write_bytes(sound[:-4] + np.array([np.inf], dtype="<f4").tobytes())
    bundle = content(phone.bundle())
    failed = phone(*BUILD, f"source={checkpoint}")
    weights.write_bytes(sound)
    assert failed.status == 1
    assert "convert:text_encoder failed: " in failed.err
    found = re.search(r"log: (\S+\.log)", failed.err)
    assert found is not None
    assert "Traceback" in Path(found[1]).read_text()
    assert "Traceback" not in failed.err
    assert "1 failed" in failed.err
    assert content(phone.bundle()) == bundle, "the bundle of before is left alone"
    assert not list((phone.cache / "scratch").iterdir())


def test_a_local_checkpoint_is_read_where_it_is(phone: Workspace, checkpoint: Path) -> None:
    def size() -> int:
        return sum(path.stat().st_size for path in (phone.cache / "blobs").rglob("*") if path.is_file())

    before = size()
    words = (*BUILD, f"source={checkpoint}")
    first = phone(*words)
    assert first.status == 0, first.err
    executed = ["account:sources", "bundle:iphone-15-pro"]
    assert first.executed == executed, "its files are those of the built-in checkpoint"
    assert size() - before < 40_000  # the bundle.json, and the account of what was read
    assert phone(*words).executed == []
    original = content(phone.bundle())

    weights = checkpoint / WEIGHTS
    status = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-2] ^= 0x40  # the first bit of the last weight's fraction
    weights.write_bytes(data)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    plan = phone("plan", *words)
    assert "1 file new or changed, to be read" in plan.rows()["source:text_encoder"]
    ran = phone(*words)
    assert ran.status == 0, ran.err
    assert ran.executed == ["account:sources", "bundle:iphone-15-pro", "convert:text_encoder"]
    after = content(phone.bundle())
    changed = {name.split("/")[1] for name in after if original[name] != after[name] and "/" in name}
    assert changed == {"TextEncoder.mlpackage"}
