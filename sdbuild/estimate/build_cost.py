"""What an action takes on the machine that docs/explanation/measurements.md describes: two cores, 24 GB.

Straight lines through the measurements, so that an action of which nothing similar has run is not a surprise; they are
right within a factor of two. `sdbuild.plan.costs` scales seconds to the machine at hand by what has run there.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIGA = 1e9
# Multiplications of a denoiser that each weight takes part in, for each point of the latent image: the inner levels
# have fewer points. SD 1.5 at 64×64: 0.8 TFLOP a sample for 0.86 thousand million weights.
_DENOISER_SHARE = 0.11
# An autoencoder's outer levels have 64 pixels for each point, with few of the weights.
_AUTOENCODER_SHARE = 6.0
# Stable Diffusion 3 makes one token of four points; attention comes on top.
_TRANSFORMER_SHARE = 0.3
_FLOPS = 1e11
"""Floating-point operations a second, float32, two cores."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an action works on.

    Attributes:
        numbers: how many weights.
        points: rows times columns of the latent image; tokens for a text encoder.
        batch: samples that go through the network at a time.
        passes: how often the network is executed.
        share: multiplications for each weight and point.
        bits: that weights are quantized to; 0 for none.
    """

    numbers: float
    points: float = 0.0
    batch: int = 1
    passes: float = 0.0
    share: float = _DENOISER_SHARE
    bits: int = 0


def share_of(component: str) -> float:
    """Multiplications for each weight and point of a component."""
    if component.startswith("vae"):
        return _AUTOENCODER_SHARE
    if component == "transformer":
        return _TRANSFORMER_SHARE
    return 1.0 if component.startswith("text_encoder") else _DENOISER_SHARE


def execution_seconds(work: Work) -> float:
    """The seconds of all passes in float32 on the processor."""
    return work.passes * work.batch * 2 * work.numbers * work.points * work.share / _FLOPS


def seconds(stage: str, work: Work) -> float | None:
    """Seconds of one action, None for a stage of which nothing is known."""
    giga = work.numbers / _GIGA
    match stage:
        case "fuse" | "embed":
            return 1.0 + 8.0 * giga
        case "convert":
            return 5.0 + 12.0 * giga
        case "quantize":
            return 1.0 + (24.0 if work.bits == 8 else 17.0) * giga
        case "chunk":
            return 0.5 + 3.5 * giga
        case "compile":
            return 2.0 + 20.0 * giga
        case "reference":
            return 5.0 + execution_seconds(work) + 4.0 * giga
        case "verify":
            return 3.0 + 1.5 * execution_seconds(work) + 2.0 * giga
        case "bundle":
            return 0.5 + 2.0 * giga
    return None


def memory(stage: str, work: Work) -> int | None:
    """Bytes of one action that could not be given back, None for a stage of which nothing is known."""
    # Values that live at the same time while a network is executed: about 40 channels for each of a point's 64 pixels.
    activations = work.batch * work.points * 64 * 40 * 4 if work.passes else 0
    match stage:
        case "source" | "fuse" | "embed" | "chunk" | "compile" | "bundle":
            return 100_000_000
        case "convert":
            return int(350e6 + 0.1 * work.numbers)
        case "quantize":
            return int(150e6 + 0.2 * work.numbers)
        case "reference":
            # The original stands in memory whole, in float32, and once more while its weights are rounded.
            return int(500e6 + 4.5 * work.numbers + activations)
        case "verify":
            return int(400e6 + 0.4 * work.numbers + activations)
    return None
