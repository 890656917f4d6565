"""`shapes`: a small latent diffusion model that was really trained, in the box.

A text-to-image model with the topology of SD 1.x that draws one to three coloured shapes, and a ControlNet for it. It
is the default recipe's model, needs no network, and shows what compression does to pictures that a person can judge.
`sdbuild.shapes` trained it and judges it.
"""

from collections.abc import Mapping
from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The pipeline, in diffusers layout."""

CONTROLNET = Path(__file__).parent / "controlnet"
"""The ControlNet that follows outlines, in diffusers layout."""

BUILTIN: Mapping[str, Path] = {"builtin:shapes": CHECKPOINT, "builtin:shapes-controlnet": CONTROLNET}
"""What recipes call them."""
