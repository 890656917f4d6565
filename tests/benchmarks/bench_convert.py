"""Convert a UNet of real size, with random weights, by our path and by the stock path.

    python -m tests.benchmarks.bench_convert --model sd15 --attention SPLIT_EINSUM

The stock path is the same module: `torch.export` with real float32 weights, then `coremltools.convert` and `save`. Each
path runs in a fresh process, imports included. Stock SDXL needs 21 GB of memory: `--paths ours` leaves it out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import checkpoints
from tests.benchmarks.harness import measure, python, report

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
        progress=lambda fraction, message: print(f"{fraction:4.0%} {message}", flush=True),
    )


def stock(component: Any, out: Path, precision: str) -> None:
    import coremltools as ct
    import numpy as np
    import torch

    from sdbuild.coreml.lowering.operators import register_missing_operators

    register_missing_operators()
    module = component.materialise()
    types = {"int32": torch.int32}
    examples = tuple(torch.zeros(spec.shape, dtype=types.get(spec.dtype, torch.float32)) for spec in component.inputs)
    with torch.no_grad():
        exported = torch.export.export(module, examples, strict=False).run_decompositions({})
    half = precision == "float16"
    ct.convert(
        exported,
        inputs=[
            ct.TensorType(name=spec.name, shape=spec.shape, dtype=np.dtype(spec.dtype if half else "float32").type)
            for spec in component.inputs
        ],
        outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in component.outputs],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
        skip_model_load=True,
    ).save(str(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*LATENTS], default="sd15")
    parser.add_argument("--attention", choices=["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"], default="SPLIT_EINSUM")
    parser.add_argument("--precision", choices=["float16", "float32"], default="float16")
    parser.add_argument("--paths", default="ours,stock", help="which paths to run")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of real size; generated where there is none")
    parser.add_argument("--run", choices=["ours", "stock"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        path = {"ours": ours, "stock": stock}[arguments.run]
        path(build(arguments.model, arguments.checkpoint, arguments.attention), arguments.out, arguments.precision)
        return
    checkpoint = arguments.checkpoint or Path(tempfile.gettempdir()) / "sdbuild-benchmarks" / arguments.model
    checkpoints.generate(arguments.model, checkpoint)
    shared = ["--model", arguments.model, "--attention", arguments.attention, "--precision", arguments.precision]
    measurements = []
    for path in arguments.paths.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            command = python(
                "tests.benchmarks.bench_convert",
                *shared,
                *("--checkpoint", str(checkpoint), "--run", path, "--out", f"{scratch}/Unet.mlpackage"),
            )
            measurements.append(measure(f"{arguments.model} {arguments.attention} {path}", command))
    print(report(measurements, f"{arguments.model} {arguments.attention} stock"))


if __name__ == "__main__":
    main()
