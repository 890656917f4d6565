"""Folders of models that people already have: ComfyUI's and AUTOMATIC1111's, in which a recipe's names are found.

`comfy:NAME` and `a1111:NAME` name a file below the folders in which these programs keep one kind of model. Where the
program is, an environment variable says: its own folder, or its `models` folder; several with the system's separator
between them. The layouts are those of ComfyUI's `folder_paths.py` and of A1111's `modules/paths.py` and extensions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.checkpoints.single_file import SUFFIXES
from sdbuild.paths import PathError, check_relative
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.recipe.references import LIBRARIES, library_of


@dataclass(frozen=True)
class Library:
    """A program's layout.

    Attributes:
        title: what people call it.
        variable: the environment variable that says where it is.
        folders: the place of a reference in a recipe → folders below the program's own; the first with a name counts.
    """

    title: str
    variable: str
    folders: Mapping[str, tuple[str, ...]]


_COMFY = {
    "model": ("models/checkpoints",),
    "refiner": ("models/checkpoints",),
    "denoiser": ("models/diffusion_models", "models/unet"),
    "vae": ("models/vae", "models/vae_approx"),
    "loras": ("models/loras",),
    "controlnets": ("models/controlnet",),
    "textual_inversions": ("models/embeddings",),
}
_A1111 = {
    "model": ("models/Stable-diffusion",),
    "refiner": ("models/Stable-diffusion",),
    "denoiser": ("models/Stable-diffusion", "models/Unet"),
    "vae": ("models/VAE", "models/VAE-approx"),
    "loras": ("models/Lora", "models/LyCORIS"),
    "controlnets": ("models/ControlNet", "extensions/sd-webui-controlnet/models"),
    "textual_inversions": ("embeddings",),
}
_LAYOUTS = {
    "comfy": Library("ComfyUI", "SDBUILD_COMFY", _COMFY),
    "a1111": Library("AUTOMATIC1111", "SDBUILD_A1111", _A1111),
}
assert {*_LAYOUTS} == {*LIBRARIES}


def find_in_library(version: str, role: str) -> Path:
    """The file or folder that a name means.

    Args:
        version: `comfy:NAME` or `a1111:NAME`; the name may leave out the suffix.
        role: the place of the reference in a recipe: `model`, `loras`, …

    Raises:
        PlanError: the program's place is not said, or it has no model of that name, or several.
    """
    program, name = library_of(version) or ("", "")
    library = _LAYOUTS[program]
    if role not in library.folders:
        raise PlanError(f"{version}: {library.title} keeps no {_words(role)}; name a Hub id or a directory")
    try:
        check_relative(name)
    except PathError as error:
        raise PlanError(f"{version}: {error}") from error
    folders = [folder for root in _roots(version, library) for folder in _folders(root, library.folders[role])]
    here = [folder for folder in folders if folder.is_dir()]
    if not here:
        listed = " or ".join(map(str, folders))
        raise PlanError(f"{version}: {library.title} keeps {_words(role)} in {listed}, and there is no such folder")
    for folder in here:
        # By its whole path or its name alone, as these programs show it; with or without the suffix.
        found = sorted({path for path in _models(folder) if _is_called(path.relative_to(folder), name)})
        exact = [path for path in found if path.relative_to(folder).as_posix() == name]
        if len(exact or found) > 1:
            several = ", ".join(path.relative_to(folder).as_posix() for path in found)
            raise PlanError(f"{version}: {folder} has several of that name: {several}; write one of these")
        if found:
            return (exact or found)[0]
    names = [path.relative_to(folder).as_posix() for folder in here for path in _models(folder)]
    where = " and ".join(map(str, here))
    raise PlanError(f"{version}: no such file in {where}{_nearest(name, names)}")


def _roots(version: str, library: Library) -> list[Path]:
    stated = os.environ.get(library.variable)
    if not stated:
        raise PlanError(
            f"{version}: where {library.title} is, is not said; set {library.variable} to its folder, such as "
            f"`export {library.variable}=~/{library.title}`"
        )
    return [Path(part).expanduser() for part in stated.split(os.pathsep) if part]


def _folders(root: Path, places: tuple[str, ...]) -> Iterator[Path]:
    """The places below a root that is the program's own folder, or its `models` folder."""
    for place in places:
        own = root / place
        below = place.removeprefix("models/")
        yield root / below if not own.is_dir() and below != place and (root / below).is_dir() else own


def _models(folder: Path) -> Iterator[Path]:
    """Every model of a folder, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and path.is_file())


def _is_called(path: Path, name: str) -> bool:
    whole = path.as_posix()
    return name in (whole, path.name, path.with_suffix("").as_posix(), path.stem)


def _nearest(name: str, names: list[str]) -> str:
    """The nearest model: by the name alone, else by its folder and suffix too."""
    hint = nearest(name, [Path(each).stem for each in names])
    return hint or nearest(name, [*names, *(Path(each).with_suffix("").as_posix() for each in names)])


def _words(role: str) -> str:
    return {"model": "checkpoints", "refiner": "checkpoints", "vae": "VAEs", "loras": "LoRAs"}.get(
        role, role.replace("_", " ")
    )
