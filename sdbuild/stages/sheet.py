"""The contact sheet stage: a few prompts, drawn by the original pipeline and by bundles of different precisions.

Inputs: ``original-FOLDER`` for each folder of the checkpoint that PyTorch draws with, and one role a column with a
bundle: ``float16``, ``8-bits``, … Parameters: ``prompts``, ``columns`` (the roles in order), ``steps``,
``guidance_scale`` and ``seed``. The result is ``contact-sheet.png``, and ``figures.json`` with each picture's PSNR
against PyTorch's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from sdbuild.stages import Stage
from sdbuild.stages.parameters import parameters, reads

PICTURE = "contact-sheet.png"


@parameters
class Parameters:
    """What is drawn.

    Attributes:
        prompts: a row each.
        columns: the roles of the bundles, in order.
        steps: denoising steps of each picture.
        guidance_scale: an integer, or a decimal.
        seed: of each picture.
    """

    prompts: tuple[str, ...]
    columns: tuple[str, ...]
    steps: int
    guidance_scale: int | str
    seed: int


STAGE = Stage(
    name="sheet",
    version=2,
    tools=("Pillow", "diffusers", "numpy", "torch", "transformers"),
    parameters=Parameters,
    title="pictures of every precision, side by side",
    group="draw the contact sheet",
    reads="bundles of several precisions, and the checkpoint's folders",
    result="pictures of every precision, side by side, and their figures",
    follows=("source", "schedule", "bundle"),
    product=PICTURE,
)

FIGURES = "figures.json"
ORIGINAL = "original-"
_ROOT_FOLDER = "index"
_PYTORCH = "PyTorch"
_SMALL = 32 * 32
# Latent pixels up to which threads wait for each other longer than they work.


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Draw every prompt in every column, and lay the pictures out.

    Raises:
        PipelineError: a bundle lacks a model that drawing needs.
    """
    import torch

    from sdbuild.pipeline import Pipeline, sheet
    from sdbuild.pipeline.request import Request

    prompts, columns = params.prompts, params.columns
    request = Request(steps=params.steps, seed=params.seed, guidance_scale=float(params.guidance_scale), safety=False)
    total = (1 + len(columns)) * len(prompts)

    def report(column: str, done: int) -> None:
        progress(done / total, f"{column}, picture {done % len(prompts) + 1} of {len(prompts)}")

    report(_PYTORCH, 0)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = _assemble(inputs, Path(temporary))
        shape = Pipeline.from_bundle(inputs[columns[0]]).bundle.latent_shape
        if shape[2] * shape[3] <= _SMALL:
            torch.set_num_threads(1)
        drawn = {_PYTORCH: sheet.draw_original(checkpoint, prompts, request, shape)}
    clients = {_PYTORCH: "diffusers"}
    captions = {_PYTORCH: "drawn by diffusers"}
    for column in columns:
        pipeline = Pipeline.from_bundle(inputs[column], precision="fp16")
        pictures = []
        for picture in pipeline.draw(prompts, request):
            pictures.append(picture)
            report(column, len(pictures) + len(prompts) * len(drawn) - 1)
        drawn[column] = pictures
        clients[column] = pictures[0].info["client"]
        captions[column] = f"{sheet.weight_of(inputs[column])}, {clients[column]}"
    ratios = {
        column: [sheet.likeness(original, picture) for original, picture in zip(drawn[_PYTORCH], row, strict=True)]
        for column, row in drawn.items()
        if column != _PYTORCH
    }
    sheet.lay_out(prompts, drawn, captions, ratios).save(out / PICTURE, optimize=True)
    figures = {
        column: {"client": clients[column], "unet": sheet.weight_of(inputs[column]), "psnr_db": ratios[column]}
        for column in columns
    }
    document = {"prompts": prompts, "steps": request.steps, "seed": request.seed, "columns": figures}
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    (out / FIGURES).write_text(text, encoding="utf-8", newline="\n")
    progress(1.0, f"{total} pictures")


def _assemble(inputs: Mapping[str, Path], folder: Path) -> Path:
    """The checkpoint as one directory again, of links to its parts."""
    for role, part in inputs.items():
        if role.startswith(ORIGINAL):
            name = role.removeprefix(ORIGINAL)
            if name == _ROOT_FOLDER:
                (folder / "model_index.json").symlink_to(part / "model_index.json")
            else:
                (folder / name).symlink_to(part, target_is_directory=True)
    return folder
