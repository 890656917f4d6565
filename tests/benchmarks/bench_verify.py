"""Verify a component at real size, as a build does, and print the figures: structure, signal, and what they cost.

    python -m tests.benchmarks.bench_verify sdxl unet --latent 96 --checkpoint ~/checkpoints/sdxl

For every precision the original answers once, and every attention implementation is converted and compared with it.
Each step runs in a process of its own, like a build's actions. Gates are set to nothing, so that a figure below them is
printed too. `--bits 6` palettizes and verifies that as well. Two options show what care is worth: `--half-embedding`
leaves nothing in float32, `--plain-norms` gives an autoencoder group normalisation that squares values as they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdbuild.stages.notes import take_notes
from tests.benchmarks.harness import measure, python

ATTENTION = ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2")
ATTENDING = ("unet", "controlnet", "transformer")
_CONDITIONING = ("scheduler", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Subject:
    """What is verified.

    Attributes:
        part: the component's folder in the checkpoint.
        latent: rows and columns of the latents.
        attention: None for components that have none of their own.
    """

    component: str
    checkpoint: Path
    part: Path
    latent: int
    precision: str
    attention: str | None
    samples: int
    bits: int | None
    half_embedding: bool
    plain_norms: bool

    def parameters(self) -> dict[str, Any]:
        """The interface, as the stages take it."""
        parameters: dict[str, Any] = {"component": self.component}
        if self.component.startswith("text_encoder"):
            two = (self.checkpoint / "text_encoder_2").is_dir()
            return parameters | {"text_sequence_length": 77, "family": "sdxl" if two else None}
        parameters |= {"latent_height": self.latent, "latent_width": self.latent}
        if self.component in ATTENDING:
            parameters |= {"text_sequence_length": 77, "batch": 2}
        if self.component == "unet":
            parameters["controlnet_ready"] = False
        return parameters


def silent(fraction: float, message: str) -> None:
    """Progress that nobody watches."""


def convert(subject: Subject, folder: Path) -> None:
    """The package of the component."""
    from sdbuild.models import build, layers, vae
    from sdbuild.stages import convert as stage

    parameters = subject.parameters() | {"precision": subject.precision, "deployment_target": "iOS16"}
    if subject.attention:
        parameters["attention_implementation"] = subject.attention
    if subject.half_embedding:
        built = build.build
        build.build = lambda **given: replace(built(**given), float32_modules=())  # type: ignore[assignment]
    if subject.plain_norms:
        vae.WideRangeGroupNorm = layers.GroupNorm  # type: ignore[assignment, attr-defined]
    stage.run({"checkpoint": subject.part}, parameters, _fresh(folder / "converted"), silent)


def quantize(subject: Subject, folder: Path) -> None:
    """The palettized package."""
    from sdbuild.stages import quantize as stage

    parameters = {"bits": subject.bits, "method": "palette", "group_size": None}
    stage.run({"package": folder / "converted"}, parameters, _fresh(folder / "quantized"), silent)


def reference(subject: Subject, folder: Path) -> None:
    """The original module's answers."""
    from sdbuild.stages import reference as stage

    inputs = {"checkpoint": subject.part}
    if subject.component in ATTENDING:
        inputs |= {name: path for name in _CONDITIONING if (path := subject.checkpoint / name).is_dir()}
    parameters = subject.parameters() | {"precision": subject.precision, "samples": subject.samples, "seed": 0}
    stage.run(inputs, parameters, _fresh(folder / "reference"), silent)


def verify(subject: Subject, folder: Path) -> None:
    """Compare both."""
    _compare(subject, folder, "convert")


def verify_quantized(subject: Subject, folder: Path) -> None:
    """Compare the palettized package."""
    _compare(subject, folder, "quantize")


def _compare(subject: Subject, folder: Path, after: str) -> None:
    from sdbuild.stages import verify as stage

    half = subject.precision == "float16"
    gates = {"structure_db": 0} | ({"signal_db": 0} if half else {}) if after == "convert" else {"palettized_db": 0}
    parameters = {
        "component": subject.component,
        "after": after,
        "precision": subject.precision,
        "bits": subject.bits if after == "quantize" else None,
        "method": "palette" if after == "quantize" else None,
        "gates": gates,
    }
    package = folder / ("quantized" if after == "quantize" else "converted")
    stage.run({"package": package, "reference": folder / "reference"}, parameters, _fresh(folder / after), silent)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


STEPS = {
    "reference": reference,
    "convert": convert,
    "verify": verify,
    "quantize": quantize,
    "verify_quantized": verify_quantized,
}


def steps(options: argparse.Namespace, folder: Path) -> Iterator[None]:
    """Run the steps of every combination, and print each step's cost and each verification."""
    attentions = options.attention.split(",") if options.component in ATTENDING else [""]
    for precision in options.precision.split(","):
        _step("reference", options, folder, precision, attentions[0])
        for attention in attentions:
            wanted = ["convert", "verify"] + (["quantize", "verify_quantized"] if options.bits else [])
            for step in wanted:
                _step(step, options, folder, precision, attention)
                yield


def _step(step: str, options: argparse.Namespace, folder: Path, precision: str, attention: str) -> None:
    words = [options.model, options.component, "--checkpoint", str(options.checkpoint), "--latent", str(options.latent)]
    words += ["--samples", str(options.samples), "--precision", precision, "--attention", attention]
    words += ["--part", str(options.part)] if options.part else []
    words += ["--bits", str(options.bits)] if options.bits else []
    words += ["--half-embedding"] if options.half_embedding else []
    words += ["--plain-norms"] if options.plain_norms else []
    cost = measure(step, python("tests.benchmarks.bench_verify", *words, "--run", step, "--folder", str(folder)))
    title = f"{options.model} {options.component} {attention} {precision} {step}"
    print(
        f"{title:60}{cost.seconds:8.1f} s {cost.cpu_seconds:8.1f} cpu s "
        f"{cost.peak_rss / 1e9:6.2f} GB {cost.peak_anonymous / 1e9:6.2f} GB anonymous",
        flush=True,
    )
    if step.startswith("verify"):
        made = folder / ("quantize" if step == "verify_quantized" else "convert")
        print(title, json.dumps(take_notes(made)["outputs"]), flush=True)


def main() -> None:
    """Run the steps and print the verification."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what the printed rows are called")
    parser.add_argument("component")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint of real size")
    parser.add_argument("--part", type=Path, help="the component's folder, where it is not the checkpoint's usual one")
    parser.add_argument("--attention", default=",".join(ATTENTION))
    parser.add_argument("--precision", default="float32,float16")
    parser.add_argument("--bits", type=int, help="palettize and verify that too")
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--half-embedding", action="store_true")
    parser.add_argument("--plain-norms", action="store_true")
    parser.add_argument("--run", choices=[*STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        STEPS[options.run](_subject(options), options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for _ in steps(options, Path(temporary)):
            pass


def _subject(options: argparse.Namespace) -> Subject:
    folder = "vae" if options.component.startswith("vae") else options.component
    return Subject(
        component=options.component,
        checkpoint=options.checkpoint,
        part=options.part or options.checkpoint / folder,
        latent=options.latent,
        precision=options.precision,
        attention=options.attention or None,
        samples=options.samples,
        bits=options.bits,
        half_embedding=options.half_embedding,
        plain_norms=options.plain_norms,
    )


if __name__ == "__main__":
    main()
