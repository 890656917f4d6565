"""Prints how like diffusers' pictures a bundle's are: `python -m tests.pipeline.figures [FOLDER]`.

For each family, in float32, in half precision and with 6 bits for each weight of the UNet, executed in half precision
as a device does; for SD 1.x with each scheduler. FOLDER keeps checkpoints, cache and bundles for the next time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from sdbuild.pipeline import Pipeline
from sdbuild.pipeline.request import DIFFUSERS_SCHEDULERS
from tests.pipeline.originals import HEIGHT, PROMPT, WIDTH, likeness, original
from tests.pipeline.studio import RECIPES, Studio

STEPS = 10
FAMILIES = {
    "sd": ("StableDiffusionPipeline", "tiny-sd"),
    "sd2": ("StableDiffusionPipeline", "sd2"),
    "sdxl": ("StableDiffusionXLPipeline", "tiny-sdxl"),
}
# The product's own defaults in the place of float32.
HALF = "precision: {text_encoder: null, text_encoder_2: null, unet: null, vae_decoder: null, vae_encoder: null}"


def recipes() -> dict[str, str]:
    """The tests' recipes, and each family's in half precision and with 6 bits."""
    made = dict(RECIPES)
    for family in FAMILIES:
        made[f"{family}-fp16"] = f"extends: {family}\n{HALF}"
        made[f"{family}-6-bit"] = f"extends: {family}\n{HALF}\nquantization: {{unet: 6}}"
    return made


def figure(studio: Studio, family: str, variant: str, scheduler: str) -> float:
    """The PSNR of one picture, in dB."""
    kind, checkpoint = FAMILIES[family]
    precision: Any = "fp16" if variant else "fp32"
    pipeline = Pipeline.from_bundle(studio.bundle(family + variant), precision=precision)
    options: dict[str, Any] = {"guidance_scale": 7.5, "negative_prompt": ""}
    pictures = pipeline(
        PROMPT, client="diffusers", steps=STEPS, seed=93, scheduler=scheduler, rng="torch", safety=False, **options
    )
    theirs = original(kind, studio.root / "checkpoints" / checkpoint, scheduler)
    expected = theirs(
        PROMPT,
        num_inference_steps=STEPS,
        height=HEIGHT,
        width=WIDTH,
        generator=torch.Generator().manual_seed(93),
        **options,
    ).images
    return likeness(pictures, expected)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        studio = Studio(Path(sys.argv[1] if len(sys.argv) > 1 else temporary), recipes())
        studio.checkpoint("tiny-sdxl")
        print(f"{'family':8}{'scheduler':18}{'float32':>10}{'float16':>10}{'6 bits':>10}", flush=True)
        for family in FAMILIES:
            for scheduler in ("default", *(DIFFUSERS_SCHEDULERS if family == "sd" else ())):
                row = [figure(studio, family, variant, scheduler) for variant in ("", "-fp16", "-6-bit")]
                print(f"{family:8}{scheduler:18}" + "".join(f"{value:7.1f} dB" for value in row), flush=True)


if __name__ == "__main__":
    main()
