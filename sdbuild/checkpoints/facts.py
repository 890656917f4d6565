"""What a checkpoint is, read from its JSON files and safetensors headers alone: family, components, parameter counts.

Works on a whole diffusers pipeline, on one of which only the JSON files are there yet, and on loose component folders.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sdbuild.checkpoints.account.bounds import other_kind, out_of_bounds
from sdbuild.checkpoints.architecture import Shape, if_known, unet_needs
from sdbuild.checkpoints.header import HeaderError, read_header, read_numbers
from sdbuild.checkpoints.markers import MarkerError, PredictionType, read_markers
from sdbuild.checkpoints.single_file import SingleFileError, describe
from sdbuild.components import PIPELINE_FOLDERS, folder_of
from sdbuild.components.component import Component
from sdbuild.documents import DocumentError, open_regular, read_json
from sdbuild.families import FAMILIES, Family, known_versions, of_checkpoint
from sdbuild.families.family import Layout
from sdbuild.recipe.diagnostics import Diagnostic, RecipeError
from sdbuild.recipe.references import ModelKind, ModelReference

Task = Literal["text-to-image", "inpainting", "instruct-pix2pix"]
# Channels of the UNet's input: the latents alone, with a mask and the masked picture's latents (1 + 4), or with the
# latents of the picture to edit (Brooks et al. 2023).
_TASKS: dict[int, Task] = {4: "text-to-image", 9: "inpainting", 8: "instruct-pix2pix"}

# The specification of safetensors bounds a header at 100 MB.
_LONGEST_HEADER = 100_000_000
_WEIGHTS = re.compile(r"(?P<stem>model|diffusion_pytorch_model)(?P<variant>\.[a-z0-9_]+)?(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """One folder of a checkpoint.

    Attributes:
        config: its `config.json`; empty where there is none.
        class_name: the class that the checkpoint names for it.
        parameters: how many numbers its weights hold; None when no safetensors file is there.
    """

    config: Mapping[str, Any]
    class_name: str | None = None
    parameters: int | None = None


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """A checkpoint's family and components.

    Attributes:
        family: None when the configurations fit no known family.
        folders: the pipeline's folders that are there (`unet`, `vae`, …); the VAE is one folder for two components.
        prediction_type: what the UNet predicts (`epsilon`, `v_prediction`), by the scheduler's configuration.
        scheduler: the scheduler's configuration; empty where it is not at hand.
    """

    family: Family | None
    folders: Mapping[str, ComponentFacts] = field(default_factory=dict)
    prediction_type: str | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def components(self) -> frozenset[Component]:
        """The components that can be built from this checkpoint."""
        return frozenset(component for component in Component if folder_of(component) in self.folders)

    @property
    def unet_config(self) -> Mapping[str, Any]:
        """The UNet's configuration; empty where there is none."""
        return self.config("unet")

    @property
    def task(self) -> Task | None:
        """What the UNet was trained to do, by the channels of its input; None for a number that nothing is known of."""
        return _TASKS.get(self.unet_channels)

    @property
    def unet_channels(self) -> int:
        """Channels of the UNet's input."""
        return int(self.unet_config.get("in_channels") or 4)

    @property
    def guidance_embedding(self) -> int | None:
        """The width in which a latent consistency model is told the guidance scale; None for all other models."""
        width = self.unet_config.get("time_cond_proj_dim")
        return int(width) if width else None

    def config(self, folder: str) -> Mapping[str, Any]:
        """A folder's configuration; empty where there is none."""
        facts = self.folders.get(folder)
        return facts.config if facts is not None else {}

    def parameters(self, folder: str) -> int | None:
        """A folder's parameter count: counted in its weights; for a UNet else told by its configuration; else None."""
        facts = self.folders.get(folder)
        if facts is None:
            return None
        if facts.parameters is None and folder == "unet":
            needs = if_known(unet_needs, facts.config, Shape(64, 64))
            return needs.parameters if needs is not None else None
        return facts.parameters


@cache
def known_facts(model: ModelReference) -> CheckpointFacts | None:
    """What is known of a published checkpoint before any of its files is here; None for all others."""
    if model.kind is not ModelKind.HUB:
        return None
    family = known_versions().get(model.version)
    if family is None:
        return None
    published = FAMILIES[family].published
    changes, parameters = published.versions[model.version], published.parameters.get(model.version, {})
    configs = {name: {**config, **changes.get(name, {})} for name, config in published.configs.items()}
    folders = {name: ComponentFacts(config, None, parameters.get(name)) for name, config in configs.items()}
    if "unet" in configs:
        counted = CheckpointFacts(family, folders).parameters("unet")
        folders["unet"] = ComponentFacts(configs["unet"], None, counted)
    return CheckpointFacts(family, folders)


def read_checkpoint_facts(directory: Path) -> CheckpointFacts:
    """Read a pipeline's folder in diffusers layout; weights may be missing.

    Raises:
        RecipeError: no pipeline is there, or one of its files cannot be read.
    """
    index = _read_json(directory / "model_index.json")
    folders = {name: directory / name for name in PIPELINE_FOLDERS if (directory / name).is_dir()}
    if not index and not folders:
        raise _unreadable(
            directory, "holds no diffusers pipeline", "it should have `model_index.json`, `unet/`, `vae/` and others"
        )
    return _facts(folders, index, _read_json(directory / "scheduler" / "scheduler_config.json"))


def read_single_file_facts(path: Path, prediction_type: PredictionType | None = None) -> CheckpointFacts:
    """Tell what a single `.safetensors` file holds from its header.

    Args:
        path: the file.
        prediction_type: what the recipe says that its UNet predicts.

    Raises:
        RecipeError: the file cannot be read, or is of no known family.
    """
    try:
        header = read_header(path)
        names = frozenset(header.tensors)
        markers = read_markers(names, header.metadata, lambda name: read_numbers(path, header, name))
        described = describe({name: t.shape for name, t in header.tensors.items()}, prediction_type, markers)
    except HeaderError as error:
        raise RecipeError([Diagnostic("checkpoint", str(error))]) from error
    except (SingleFileError, MarkerError) as error:
        raise _unreadable(path, str(error), "see docs/how-to/single-file.md") from error
    classes = {name: listed[1] for name, listed in described.index.items() if isinstance(listed, list)}
    folders = {
        name: ComponentFacts(folder.config, classes[name], folder.parameters)
        for name, folder in described.folders.items()
    }
    return CheckpointFacts(described.family, folders, described.prediction_type, described.scheduler)


def read_component_facts(
    directories: Mapping[str, Path], index: Path | None = None, scheduler: Path | None = None
) -> CheckpointFacts:
    """As `read_checkpoint_facts`, for component folders that lie anywhere.

    Args:
        directories: component, or its folder's name in a pipeline → a folder with `config.json` and, maybe, weights.
        index: the pipeline's `model_index.json`, where it is at hand.
        scheduler: the scheduler's `scheduler_config.json`, where it is at hand.
    """
    names = {component.value: folder_of(component) for component in Component}
    folders = {names.get(name, name): path for name, path in directories.items()}
    return _facts(folders, _read_json(index) if index else {}, _read_json(scheduler) if scheduler else {})


def _facts(folders: Mapping[str, Path], index: Mapping[str, Any], scheduler: Mapping[str, Any]) -> CheckpointFacts:
    listed = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2 and value[1]}
    names = [name for name in PIPELINE_FOLDERS if (name in listed if index else name in folders)]
    found = {
        name: ComponentFacts(
            _read_json(folders[name] / "config.json") if name in folders else {},
            str(listed[name][1]) if name in listed else None,
            _count_parameters(folders[name]) if name in folders else None,
        )
        for name in names
    }
    for name, facts in found.items():
        if held := other_kind(facts.class_name, facts.config):
            where = folders[name] / "config.json"
            what = f"is a {held}'s, and model_index.json lists a {facts.class_name} for {name}"
            raise _unreadable(where, what, "one of the two is of another checkpoint; download both again")
    prediction = scheduler.get("prediction_type", "epsilon") if scheduler else None
    configs = {name: facts.config for name, facts in found.items()}
    classes = {name: facts.class_name for name, facts in found.items() if facts.class_name is not None}
    family = of_checkpoint(Layout(str(index.get("_class_name", "")), configs, classes))
    return CheckpointFacts(family, found, prediction, scheduler)


def _count_parameters(folder: Path) -> int | None:
    """The numbers in one variant of the folder's safetensors files, by their headers."""
    variants: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if match := _WEIGHTS.fullmatch(path.name):
            variants.setdefault(match["variant"] or "", []).append(path)
    if not variants:
        return None
    return sum(_count_in_file(path) for path in variants[min(variants)])


def _count_in_file(path: Path) -> int:
    return sum(math.prod(tensor["shape"]) for name, tensor in _read_header(path).items() if name != "__metadata__")


def _read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, each tensor with its shape."""
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, path.stat().st_size - 8):
                raise _unreadable(path, "is not a whole safetensors file", "download it again")
            header = json.loads(file.read(length))
        if not all(name == "__metadata__" or min(tensor["shape"], default=0) >= 0 for name, tensor in header.items()):
            raise ValueError("a shape is negative")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path, f"cannot be read: {error}", "download it again") from error
    return dict(header)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, every value that is read within its bounds; empty where there is no file."""
    try:
        data = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, DocumentError) as error:
        raise _unreadable(path, f"cannot be read: {error}", "download it again") from error
    if not isinstance(data, dict):
        raise _unreadable(path, "is not a JSON object", "download it again")
    if wrong := next(out_of_bounds(data), None):
        raise _unreadable(path, wrong, "take the file of the model that the weights are of")
    return data


def _unreadable(path: Path, what: str, help_: str) -> RecipeError:
    return RecipeError([Diagnostic("checkpoint", f"{path}: {what}", None, help_)])
