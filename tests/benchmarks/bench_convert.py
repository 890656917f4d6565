"""Convert a UNet of real size, with random weights, by our path and by the stock path.

    python -m tests.benchmarks.bench_convert --model sd15 --attention SPLIT_EINSUM

Our path is the convert stage, called as a build's workers call it. The stock path is the same module: `torch.export`
with real float32 weights, then `coremltools.convert` and `save`; `traced` is the same with `torch.jit.trace`, by which
older converters go. Each path runs in a fresh process, imports included, which ends as a build's workers do: without
taking the interpreter apart. Stock SDXL needs 21 GB of memory: `--paths ours` leaves it out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import checkpoints
from tests.benchmarks.harness import Measurement, measure, python, report

LATENTS = {"sd15": 64, "sd21": 96, "sdxl": 128}


def unet(model: str, attention: str) -> dict[str, Any]:
    """The UNet of one of the benchmark's models, as `sdbuild.models.build.build` and the convert stage ask for it."""
    size = LATENTS[model]
    return {
        "component": "unet",
        "attention_implementation": attention,
        "latent_height": size,
        "latent_width": size,
    }


def ours(checkpoint: Path, asked: dict[str, Any], out: Path, precision: str) -> None:
    from sdbuild.stages.convert import run_alone

    run_alone(
        {"checkpoint": checkpoint},
        {**asked, "precision": precision, "deployment_target": "iOS16"},
        out,
        lambda _, message: print(f"{time.process_time():6.1f} processor seconds: {message}", flush=True),
    )


def stock(checkpoint: Path, asked: dict[str, Any], out: Path, precision: str) -> None:
    import torch

    component, module, examples = _materialised(checkpoint, asked)
    with torch.no_grad():
        exported = torch.export.export(module, examples, strict=False).run_decompositions({})
    _convert(exported, component, out, precision)


def traced(checkpoint: Path, asked: dict[str, Any], out: Path, precision: str) -> None:
    import torch

    component, module, examples = _materialised(checkpoint, asked)
    with torch.no_grad():
        script = torch.jit.trace(module, examples, check_trace=False)
    _convert(script, component, out, precision)


def _materialised(checkpoint: Path, asked: dict[str, Any]) -> tuple[Any, Any, tuple[Any, ...]]:
    import torch

    from sdbuild.coreml.lowering.patches.operators import register_missing_operators
    from sdbuild.models.build import build

    register_missing_operators()
    component = build(checkpoint=checkpoint, **asked)
    module = component.materialise()
    types = {"int32": torch.int32}
    examples = tuple(torch.zeros(spec.shape, dtype=types.get(spec.dtype, torch.float32)) for spec in component.inputs)
    return component, module, examples


def _convert(program: Any, component: Any, out: Path, precision: str) -> None:
    import coremltools as ct
    import numpy as np

    half = precision == "float16"
    ct.convert(
        program,
        inputs=[
            ct.TensorType(name=spec.name, shape=spec.shape, dtype=np.dtype(spec.dtype if half else "float32").type)
            for spec in component.inputs
        ],
        outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in component.outputs],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
        skip_model_load=True,
    ).save(str(out / "Unet.mlpackage"))


PATHS = {"ours": ours, "stock": stock, "traced": traced}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*LATENTS], default="sd15")
    parser.add_argument("--attention", choices=["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"], default="SPLIT_EINSUM")
    parser.add_argument("--precision", choices=["float16", "float32"], default="float16")
    parser.add_argument("--paths", default="ours,stock", help="which paths to run, of ours, stock and traced")
    parser.add_argument("--repeat", type=int, default=1, help="how often, in turns; the fastest of each path counts")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of real size; generated where there is none")
    parser.add_argument("--run", choices=[*PATHS], help="run this path alone, in this process, and print its steps")
    parser.add_argument("--out", type=Path, help="the folder to write the package into with --run")
    options = parser.parse_args()
    if options.run:
        tempfile.tempdir = str(options.out)  # where coremltools leaves a package that this process does not take away
        asked = unet(options.model, options.attention)
        PATHS[options.run](options.checkpoint / "unet", asked, options.out, options.precision)
        sys.stdout.flush()
        os._exit(0)
    checkpoint = options.checkpoint or Path(tempfile.gettempdir()) / "sdbuild-benchmarks" / options.model
    checkpoints.generate(options.model, checkpoint)
    shared = ["--model", options.model, "--attention", options.attention, "--precision", options.precision]
    best: dict[str, Measurement] = {}
    for path in options.repeat * options.paths.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            command = python(
                "tests.benchmarks.bench_convert",
                *shared,
                *("--checkpoint", str(checkpoint), "--run", path, "--out", scratch),
            )
            measured = measure(f"{options.model} {options.attention} {path}", command)
        best[path] = min(measured, best.get(path, measured), key=lambda one: one.seconds)
    print(report([*best.values()], f"{options.model} {options.attention} stock"))


if __name__ == "__main__":
    main()
