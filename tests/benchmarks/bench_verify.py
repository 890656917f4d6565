"""Verify a component at real size, as a build does, and print the figures: structure, signal, and what they cost.

    python -m tests.benchmarks.bench_verify sdxl unet --latent 96 --attention SPLIT_EINSUM --checkpoint /tmp/sdxl

Convert, reference and verify run in processes of their own, like a build's actions. Gates are set to nothing, so that a
figure below them is printed too. `--half-embedding` leaves nothing in float32, which shows what that costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import measure, python

ATTENTION = ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2")
_CONDITIONING = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


def silent(fraction: float, message: str) -> None:
    """Progress that nobody watches."""


def interface(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parameters that the stages share."""
    parameters: dict[str, Any] = {"component": arguments.component}
    if arguments.component.startswith("text_encoder"):
        family = "sdxl" if arguments.model.startswith("sdxl") else None
        return parameters | {"text_sequence_length": 77, "family": family}
    parameters |= {"latent_height": arguments.latent, "latent_width": arguments.latent}
    if arguments.component in ("unet", "controlnet"):
        parameters |= {"text_sequence_length": 77, "batch": 2}
    if arguments.component == "unet":
        parameters["controlnet_ready"] = False
    return parameters


def convert(arguments: argparse.Namespace, folder: Path) -> None:
    """The package of the component."""
    from sdbuild.models import build
    from sdbuild.stages import convert as stage

    parameters = interface(arguments) | {"precision": arguments.precision, "deployment_target": "iOS16"}
    if arguments.component in ("unet", "controlnet"):
        parameters["attention_implementation"] = arguments.attention
    if arguments.half_embedding:
        built = build.build
        build.build = lambda **given: _without_float32(built(**given))  # type: ignore[assignment]
    (folder / "package").mkdir()
    stage.run({"checkpoint": _part(arguments)}, parameters, folder / "package", silent)


def _without_float32(component: Any) -> Any:
    return replace(component, float32_modules=())


def reference(arguments: argparse.Namespace, folder: Path) -> None:
    """The original module's answers."""
    from sdbuild.stages import reference as stage

    inputs = {"checkpoint": _part(arguments)}
    if arguments.component in ("unet", "controlnet"):
        inputs |= {name: path for name in _CONDITIONING if (path := arguments.checkpoint / name).is_dir()}
    parameters = interface(arguments) | {"precision": arguments.precision, "samples": arguments.samples, "seed": 0}
    (folder / "reference").mkdir()
    stage.run(inputs, parameters, folder / "reference", silent)


def verify(arguments: argparse.Namespace, folder: Path) -> None:
    """Compare both."""
    from sdbuild.stages import verify as stage

    parameters = {
        "component": arguments.component,
        "after": "convert",
        "precision": arguments.precision,
        "bits": None,
        "gates": {"structure_db": 0} | ({"signal_db": 0} if arguments.precision == "float16" else {}),
    }
    inputs = {"package": folder / "package", "reference": folder / "reference"}
    stage.run(inputs, parameters, folder, silent)


def _part(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.checkpoint / ("vae" if arguments.component.startswith("vae") else arguments.component)
    return folder


STEPS = {"convert": convert, "reference": reference, "verify": verify}


def main() -> None:
    """Run the three steps and print the verification."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["sd15", "sd21", "sdxl"])
    parser.add_argument("component")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint of real size")
    parser.add_argument("--attention", choices=ATTENTION, default="SPLIT_EINSUM")
    parser.add_argument("--precision", choices=["float16", "float32"], default="float16")
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--half-embedding", action="store_true")
    parser.add_argument("--run", choices=[*STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments, given = parser.parse_args(), sys.argv[1:]
    if arguments.run:
        STEPS[arguments.run](arguments, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for step in STEPS:
            command = python("tests.benchmarks.bench_verify", *given, "--run", step, "--folder", temporary)
            cost = measure(step, command)
            print(
                f"{step:10}{cost.seconds:8.1f} s {cost.cpu_seconds:8.1f} cpu s "
                f"{cost.peak_rss / 1e9:6.2f} GB {cost.peak_anonymous / 1e9:6.2f} GB anonymous",
                flush=True,
            )
        print(" ".join(given), json.dumps(json.loads((Path(temporary) / "verification.json").read_text())["outputs"]))


if __name__ == "__main__":
    main()
