"""Judges `shapes` on combinations that it was never trained on: `python -m sdbuild.shapes.evaluate`.

Each column of the recipe's contact sheet draws the same prompts from the same random numbers, PyTorch by diffusers' own
pipeline, the others from their bundles with every half-precision result rounded as a device does; the checker reads
colour, shape and count off the pixels. With `--controlnet`, pictures follow outlines, and what is counted is how many
pixels of the outline lie on an edge of the picture. With `--safety`, the safety checker looks at the pictures that
PyTorch drew, and is judged by what the other checker reads there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdbuild.builtin.shapes import CHECKPOINT, CONTROLNET
from sdbuild.console import built
from sdbuild.isolation import leave_working_folder
from sdbuild.pipeline import Pipeline
from sdbuild.pipeline.clients.swift.safety import is_flagged
from sdbuild.pipeline.pictures import to_clip
from sdbuild.pipeline.random_sources import NumpySource
from sdbuild.pipeline.request import Request
from sdbuild.shapes.checker import foreground, read
from sdbuild.shapes.drawing import mask, outline
from sdbuild.shapes.scenes import FORBIDDEN, Scene, describe, legible, sample

JUDGING_SEED = 2
_STEPS, _GUIDANCE = 20, 3.0
_NEAR = 1
"""How far from an edge, in pixels, a pixel of an outline still lies on it: lines are 1.5 pixels wide."""

_LATENTS = (1, 4, 8, 8)
_BATCH = 16


@dataclass(frozen=True)
class Question:
    """One picture to draw: its number is its seed."""

    number: int
    scene: Scene
    prompt: str


def questions(count: int) -> list[Question]:
    """Prompts of combinations that training never saw."""
    asked: list[Question] = []
    number = 0
    while len(asked) < count:
        random = np.random.default_rng((JUDGING_SEED, number))
        scene = sample(random, unseen=True)
        if legible(scene):
            asked.append(Question(number, scene, describe(scene, random).text))
        number += 1
    return asked


def by_diffusers(asked: Sequence[Question], steps: int, *, controlled: bool) -> Iterator[Image.Image]:
    """Pictures by PyTorch in float32, crosses too."""
    import torch
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

    parts: dict[str, Any] = {"local_files_only": True, "torch_dtype": torch.float32}
    parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if controlled:
        parts["controlnet"] = ControlNetModel.from_pretrained(CONTROLNET, torch_dtype=torch.float32)
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(CHECKPOINT, **parts)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(CHECKPOINT, **parts)
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(asked), _BATCH):
        some = asked[start : start + _BATCH]
        noise = np.concatenate([NumpySource(question.number).normal(_LATENTS) for question in some])
        control = {"image": [Image.fromarray(outline(question.scene)) for question in some]} if controlled else {}
        prompts = [question.prompt for question in some]
        drawn = pipeline(
            prompts,
            num_inference_steps=steps,
            guidance_scale=_GUIDANCE,
            latents=torch.from_numpy(noise),
            height=64,
            width=64,
            **control,
        )
        yield from drawn.images


def by_bundle(asked: Sequence[Question], steps: int, bundle: Path, *, controlled: bool) -> Iterator[Image.Image]:
    """Pictures from a bundle, as a device draws them."""
    pipeline = Pipeline.from_bundle(bundle, precision="fp16")
    for question in asked:
        control = {pipeline.bundle.controlnets[0]: Image.fromarray(outline(question.scene))} if controlled else {}
        request = Request(
            steps=steps, guidance_scale=_GUIDANCE, seed=question.number, safety=False, controlnet_images=control
        )
        yield from pipeline.draw(question.prompt, request)


def on_outline(picture: NDArray[np.uint8], scene: Scene) -> float:
    """The share of an outline's pixels that lie on an edge of the picture."""
    given, drawn = (shape ^ ndimage.binary_erosion(shape) for shape in (mask(scene), foreground(picture)))
    near = ndimage.binary_dilation(drawn, iterations=_NEAR, structure=np.ones((3, 3)))
    return float((given & near).sum() / given.sum())


def judge(
    asked: Sequence[Question], pictures: Iterator[Image.Image], *, controlled: bool, name: str = ""
) -> dict[str, float]:
    """Shares of the pictures, or for outlines of their pixels, that are right."""
    right, counts, colours, shapes = [], [], [], []
    outlines: list[float] = []
    for done, (question, picture) in enumerate(zip(asked, pictures, strict=True), 1):
        pixels, scene = np.asarray(picture), question.scene
        seen = read(pixels)
        right.append(seen.shows(scene))
        counts.append(len(seen.shapes) == scene.count)
        colours.append(bool(seen.shapes) and all(colour == scene.colour for colour, _ in seen.shapes))
        shapes.append(bool(seen.shapes) and all(shape == scene.shape for _, shape in seen.shapes))
        outlines.append(on_outline(pixels, scene))
        if done % 50 == 0:
            print(f"{name} {done} of {len(asked)}", file=sys.stderr)
    shares: dict[str, list[bool] | list[float]] = {
        "right": right,
        "count": counts,
        "colour": colours,
        "shape": shapes,
    }
    if controlled:
        shares["on the outline"] = outlines
    return {name: float(np.mean(values)) for name, values in shares.items()}


@dataclass(frozen=True)
class Column:
    """Who draws: PyTorch, or a bundle."""

    name: str
    bundle: Path | None
    controlled: bool


def shares(column: Column, asked: Sequence[Question], steps: int) -> dict[str, float]:
    """What of a column's pictures is right."""
    import torch

    torch.set_num_threads(1)  # at 8×8 latents, threads wait for each other longer than they work
    if column.bundle is None:
        pictures = by_diffusers(asked, steps, controlled=column.controlled)
    else:
        pictures = by_bundle(asked, steps, column.bundle, controlled=column.controlled)
    return judge(asked, pictures, controlled=column.controlled, name=column.name)


def flagged(pictures: Sequence[Image.Image]) -> list[bool]:
    """What diffusers' own safety checker says of pictures."""
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    checker = StableDiffusionSafetyChecker.from_pretrained(CHECKPOINT / "safety_checker").float().eval()
    pixels = torch.from_numpy(np.concatenate([to_clip(picture, 224) for picture in pictures]))
    with torch.inference_mode():
        _, found = checker(clip_input=pixels, images=np.zeros((len(pictures), 64, 64, 3), np.float32))
    return [bool(one) for one in found]


def safety(asked: Sequence[Question], steps: int, bundle: Path) -> dict[str, dict[str, float]]:
    """How often diffusers' safety checker and the bundle's find the forbidden shape where it is and where it is not."""
    model = Pipeline.from_bundle(bundle, precision="fp16").bundle.model("SafetyChecker")
    shown: list[tuple[Image.Image, bool]] = []
    for picture in by_diffusers(asked, steps, controlled=False):
        seen = {shape for _, shape in read(np.asarray(picture)).shapes}
        if len(seen) == 1:
            shown.append((picture, seen == {FORBIDDEN}))
    pictures, forbidden = [picture for picture, _ in shown], np.array([there for _, there in shown])
    verdicts = {"PyTorch": flagged(pictures), "bundle": [is_flagged(model, picture) for picture in pictures]}
    return {
        who: {
            f"of {FORBIDDEN}es": float(np.mean(np.array(said)[forbidden])),
            "of others": float(np.mean(np.array(said)[~forbidden])),
        }
        for who, said in verdicts.items()
    }


def main() -> None:
    """Print a Markdown table, a row a column of the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=208, help="how many (208)")
    parser.add_argument("--steps", type=int, default=_STEPS, help=f"denoising steps ({_STEPS})")
    parser.add_argument("--columns", default="PyTorch,float16,8-bits,6-bits,4-bits,2-bits", help="which to judge")
    parser.add_argument("--controlnet", action="store_true", help="follow outlines; columns are PyTorch and the bundle")
    parser.add_argument("--safety", action="store_true", help="judge the safety checker, in PyTorch and in the bundle")
    options = parser.parse_args()
    leave_working_folder()  # the processes of the pool start like this one, and would import from there
    asked = questions(options.prompts)
    recipe = "shapes-controlnet" if options.controlnet else "shapes"
    names = ["PyTorch", "bundle"] if options.controlnet else options.columns.split(",")
    request = built.BuildRequest.from_variables({"recipe": recipe, "target": "iphone-15-pro"}, "evaluate")
    if options.safety:
        table = safety(asked, options.steps, built.bundle(request.with_variables(verify="off")))
        _print((who, row) for who, row in table.items())
        return
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        columns = [Column(name, _bundle(request, name, Path(temporary)), options.controlnet) for name in names]
        rows = pool.map(partial(shares, asked=asked, steps=options.steps), columns)
        _print((column.name, row) for column, row in zip(columns, rows, strict=True))


def _print(rows: Iterable[tuple[str, dict[str, float]]]) -> None:
    for number, (name, row) in enumerate(rows):
        if number == 0:
            print(f"| by | {' | '.join(row)} |")
            print(f"| --- |{' --- |' * len(row)}")
        print(f"| {name} | {' | '.join(f'{share:.1%}' for share in row.values())} |", flush=True)


def _bundle(request: built.BuildRequest, column: str, folder: Path) -> Path | None:
    if column == "PyTorch":
        return None
    if column == "bundle":
        return built.bundle(request.with_variables(verify="off"))
    (action,) = built.artifacts(request, column, "bundle")
    return built.artifact(request, action, folder / column)


if __name__ == "__main__":
    main()
