"""Convert a UNet of real size, with random weights, by our path and by the stock path.

    python -m tests.benchmarks.bench_convert --model sd15 --attention SPLIT_EINSUM

The stock path is the same module: `torch.export` with real float32 weights, then `coremltools.convert` and `save`;
`traced` is the same with `torch.jit.trace`, by which older converters go. Each path runs in a fresh process, imports
included, which ends as a build's workers do: without taking the interpreter apart. Stock SDXL needs 21 GB of memory:
`--paths ours` leaves it out.
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


def build(model: str, checkpoint: Path, attention: str) -> Any:
    from sdbuild.models.build import build

    size = LATENTS[model]
    return build("unet", checkpoint / "unet", attention_implementation=attention, latent_height=size, latent_width=size)


def ours(component: Any, out: Path, precision: str) -> None:
    from sdbuild.coreml.convert import convert

    convert(
        component.module,
        component.inputs,
        component.outputs,
        component.weights,
        out,
        precision=precision,
        deployment_target="iOS16",
        progress=lambda _, message: print(f"{time.process_time():6.1f} processor seconds: {message}", flush=True),
    )


def stock(component: Any, out: Path, precision: str) -> None:
    import torch

    module, examples = _materialised(component)
    with torch.no_grad():
        exported = torch.export.export(module, examples, strict=False).run_decompositions({})
    _convert(exported, component, out, precision)


def traced(component: Any, out: Path, precision: str) -> None:
    import torch

    module, examples = _materialised(component)
    with torch.no_grad():
        script = torch.jit.trace(module, examples, check_trace=False)
    _convert(script, component, out, precision)


def _materialised(component: Any) -> tuple[Any, tuple[Any, ...]]:
    import torch

    from sdbuild.coreml.lowering.operators import register_missing_operators

    register_missing_operators()
    module = component.materialise()
    types = {"int32": torch.int32}
    examples = tuple(torch.zeros(spec.shape, dtype=types.get(spec.dtype, torch.float32)) for spec in component.inputs)
    return module, examples


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
    ).save(str(out))


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
    parser.add_argument("--out", type=Path, help="the package to write with --run")
    arguments = parser.parse_args()
    if arguments.run:
        component = build(arguments.model, arguments.checkpoint, arguments.attention)
        PATHS[arguments.run](component, arguments.out, arguments.precision)
        sys.stdout.flush()
        os._exit(0)
    checkpoint = arguments.checkpoint or Path(tempfile.gettempdir()) / "sdbuild-benchmarks" / arguments.model
    checkpoints.generate(arguments.model, checkpoint)
    shared = ["--model", arguments.model, "--attention", arguments.attention, "--precision", arguments.precision]
    best: dict[str, Measurement] = {}
    for path in arguments.repeat * arguments.paths.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            command = python(
                "tests.benchmarks.bench_convert",
                *shared,
                *("--checkpoint", str(checkpoint), "--run", path, "--out", f"{scratch}/Unet.mlpackage"),
            )
            measured = measure(f"{arguments.model} {arguments.attention} {path}", command)
        best[path] = min(measured, best.get(path, measured), key=lambda one: one.seconds)
    print(report([*best.values()], f"{arguments.model} {arguments.attention} stock"))


if __name__ == "__main__":
    main()
