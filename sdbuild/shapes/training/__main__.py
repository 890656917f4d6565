"""Train `shapes` from nothing: `python -m sdbuild.shapes.training FOLDER`.

Parts that FOLDER already holds are taken as they are, so that a training that was stopped goes on with the next part.
The same machine and the same versions of torch, diffusers and transformers give the same weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from sdbuild.shapes.drawing import outline
from sdbuild.shapes.scenes import describe
from sdbuild.shapes.training import autoencoder, checkpoint, controlnet, denoiser, safety, text, tokenizer
from sdbuild.shapes.training.data import legible_scenes

_PICTURES = 24_000
_SENTENCES = 2
"""Each picture's sentences."""
_THREADS = 2


def examples(model: AutoencoderKL, encoder: CLIPTextModel, tokens: CLIPTokenizer) -> denoiser.Examples:
    """What the UNet and the ControlNet learn from."""
    drawn = list(islice(legible_scenes(), _PICTURES))
    sentences = [describe(content, random).text for content, random in drawn for _ in range(_SENTENCES)]
    encoded = [
        text.states(encoder, tokens, sentences[start : start + 1024]).half() for start in range(0, len(sentences), 1024)
    ]
    return denoiser.Examples(
        latents=autoencoder.encode(model, [content for content, _ in drawn]),
        states=torch.cat(encoded).reshape(_PICTURES, _SENTENCES, text.LENGTH, text.WIDTH),
        unsaid=text.states(encoder, tokens, [""])[0],
    )


def outlines() -> Tensor:
    """The outlines (N, 64, 64) of the examples' pictures, 8 bits a pixel."""
    drawn = islice(legible_scenes(), _PICTURES)
    return torch.from_numpy(np.stack([outline(content)[:, :, 0] for content, _ in drawn]))


def main() -> None:
    """Train what is missing, then write the two checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(_THREADS)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    def part(name: str, kind: Any, train: Callable[[], Any]) -> Any:
        place = folder / name
        if not place.is_dir():
            train().save_pretrained(place)
        return kind.from_pretrained(place).eval()

    vocabulary = folder / "tokenizer"
    if not vocabulary.is_dir():
        tokenizer.write(vocabulary)
    tokens = CLIPTokenizer.from_pretrained(vocabulary)
    vae = part("vae", AutoencoderKL, lambda: autoencoder.train(say))
    encoder = part("text_encoder", CLIPTextModel, lambda: text.train(vocabulary, say))
    part("safety_checker", StableDiffusionSafetyChecker, lambda: safety.train(vae, say))
    if not ((folder / "unet").is_dir() and (folder / "controlnet").is_dir()):
        learnt = examples(vae, encoder, tokens)
        say(f"{_PICTURES} pictures; latents deviate by {learnt.latents.std():.3f}")
        snapshots = folder / "snapshots"
        unet = part(
            "unet",
            UNet2DConditionModel,
            lambda: denoiser.train(learnt, say, lambda model, name: model.save_pretrained(snapshots / name)),
        )
        part("controlnet", ControlNetModel, lambda: controlnet.train(unet, learnt, outlines(), say))
    checkpoint.write(folder, folder / "checkpoint", folder / "control")
    say("done")


if __name__ == "__main__":
    main()
