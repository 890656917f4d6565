"""One component's files in diffusers' layout, taken out of a single-file checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.files import is_card, write_config
from sdbuild.checkpoints.header import read_header, read_numbers
from sdbuild.checkpoints.markers import MarkerError, Markers, PredictionType, read_markers
from sdbuild.checkpoints.pickle_header import pickle_header
from sdbuild.checkpoints.single_file import SUFFIXES, SingleFile, SingleFileError, describe
from sdbuild.errors import SdbuildError
from sdbuild.models.errors import ModelError
from sdbuild.stages.files import place

Progress = Callable[[float, str], None]

_WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors"}
_OTHER_WEIGHTS = "model.safetensors"
_PART_WEIGHTS = "diffusion_pytorch_model.safetensors"


class ExtractError(SdbuildError):
    """A component could not be taken out of a single-file checkpoint."""


def extract(tree: Path, component: str, prediction_type: PredictionType | None, out: Path, progress: Progress) -> None:
    """Fill `out` with the files of one component.

    Args:
        tree: the directory with the file, and the model's card where there is one.
        component: `unet`, `vae`, `text_encoder`, `text_encoder_2`, `scheduler` or `index`.
        prediction_type: what the recipe says that the UNet predicts; None to go by the file.
        out: the component's own directory.
        progress: called with the share of bytes that is written.

    Raises:
        ExtractError: the file holds no such component, or is of no known family.
        ModelError: the file is damaged, or holds more than tensors.
    """
    from sdbuild.checkpoints.single_file_tensors import component_tensors, open_single_file
    from sdbuild.checkpoints.write import write_safetensors

    (path,) = (each for each in sorted(tree.iterdir()) if each.suffix in SUFFIXES)
    stored = open_single_file(path)
    try:
        shapes = {name: tensor.shape for name, tensor in stored.items()}
        described = describe(shapes, prediction_type, _markers(path))
    except (SingleFileError, MarkerError) as error:
        raise ExtractError(f"{path.name}: {error}") from error
    if component == "scheduler":
        write_config(out / "scheduler_config.json", _scheduler(path, described))
        return
    for card in tree.iterdir():
        if is_card(card.name):
            place(card, out / card.name)
    if component == "index":
        write_config(out / "model_index.json", described.index)
        write_config(out / "scheduler" / "scheduler_config.json", _scheduler(path, described))
        for name, folder in described.folders.items():
            write_config(out / name / "config.json", folder.config)
        return
    if component not in described.folders:
        has = ", ".join(described.folders)
        raise ExtractError(f"{path.name}: a single-file checkpoint with {has}, and no {component}.")
    folder = described.folders[component]
    write_config(out / "config.json", folder.config)
    try:
        tensors = component_tensors(component, folder, stored)
    except ModelError as error:
        raise ExtractError(f"{path.name}: {error}") from error
    write_safetensors(out / _WEIGHTS.get(component, _OTHER_WEIGHTS), tensors, progress)


def _markers(path: Path) -> Markers:
    header = read_header(path) if path.suffix == ".safetensors" else pickle_header(path)
    return read_markers(frozenset(header.tensors), header.metadata, lambda name: read_numbers(path, header, name))


def extract_part(tree: Path, component: str, base: Path, out: Path, progress: Progress) -> None:
    """Fill `out` with one network's files, of a file that holds that network and maybe others, without a configuration.

    Args:
        tree: the directory with the file, and the model's card where there is one.
        component: `vae`, `unet`, `transformer` or `controlnet`.
        base: the JSON files of the pipeline that it is for.
        out: the component's own directory.
        progress: called with the share of bytes that is written.

    Raises:
        ExtractError: the file holds no such network, or one that is not for that pipeline.
        ModelError: the file is damaged, or holds more than tensors.
    """
    from sdbuild.checkpoints.part_file import PartFileError, describe_part, part_tensors
    from sdbuild.checkpoints.single_file_tensors import open_single_file
    from sdbuild.checkpoints.write import write_safetensors

    (path,) = (each for each in sorted(tree.iterdir()) if each.suffix in SUFFIXES)
    stored = open_single_file(path, ("",))
    configs = {each.parent.name: json.loads(each.read_bytes()) for each in base.glob("*/config.json")}
    try:
        part = describe_part(component, {name: tensor.shape for name, tensor in stored.items()}, configs)
        tensors = part_tensors(component, part, stored)
    except (PartFileError, ModelError) as error:
        raise ExtractError(f"{path.name}: {error}") from error
    for card in tree.iterdir():
        if is_card(card.name):
            place(card, out / card.name)
    write_config(out / "config.json", part.config)
    write_safetensors(out / _PART_WEIGHTS, tensors, progress)


def _scheduler(path: Path, described: SingleFile) -> Mapping[str, Any]:
    if described.prediction_type is None:
        raise ExtractError(
            f"{path.name}: nothing in an SD 2.x file tells what its UNet predicts. Say it in the recipe: "
            "model.prediction_type is epsilon for the 512×512 models, v_prediction for the 768×768 ones."
        )
    return described.scheduler
