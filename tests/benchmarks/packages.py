"""A UNet package of real size with random weights, made once and kept beside the checkpoint it was made from."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.benchmarks import checkpoints
from tests.benchmarks.harness import measure, python


def unet(model: str, attention: str) -> Path:
    """The half-precision package; converted in a process of its own where it is not there yet."""
    folder = Path(tempfile.gettempdir()) / "sdbuild-benchmarks"
    package = folder / f"{model}-{attention}" / "Unet.mlpackage"
    if package.exists():
        return package
    checkpoints.generate(model, folder / model)
    unfinished = package.parent.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    command = python(
        "tests.benchmarks.bench_convert",
        *("--model", model, "--attention", attention, "--checkpoint", str(folder / model)),
        *("--run", "ours", "--out", str(unfinished)),
    )
    measure(f"{model} {attention} conversion", command)
    unfinished.rename(package.parent)
    return package
