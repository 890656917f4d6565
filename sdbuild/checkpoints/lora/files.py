"""Which files a LoRA is: one file, one with peft's settings beside it, or a folder with those of several components."""

from __future__ import annotations

from pathlib import Path

from sdbuild.checkpoints.files import ADAPTER_SETTINGS as CONFIG_FILE
from sdbuild.checkpoints.files import ADAPTER_STEM
from sdbuild.errors import SdbuildError

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_WHOLE = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
_FOLDERS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")


class LoraFilesError(SdbuildError):
    """A folder holds no LoRA, or several."""

    exit_status = 2


def lora_files(path: Path) -> dict[str, Path]:
    """A local LoRA's files: path in its artifact → file.

    Args:
        path: a file, whose settings of peft are taken along; or a folder with peft's or diffusers' names, or with one
            such folder for each component.

    Raises:
        LoraFilesError: the folder holds none, or several.
    """
    if path.is_file():
        beside = path.parent / CONFIG_FILE
        others = [other for other in path.parent.iterdir() if other.suffix in SUFFIXES and other != path]
        settings = beside.is_file() and (path.stem == ADAPTER_STEM or not others)
        return {path.name: path} | ({CONFIG_FILE: beside} if settings else {})
    found = _of_folder(path)
    for folder in _FOLDERS:
        if (path / folder).is_dir():
            found |= {f"{folder}/{name}": file for name, file in _of_folder(path / folder).items()}
    if not any(name.endswith(SUFFIXES) for name in found):
        raise LoraFilesError(
            f"{path}: holds no LoRA: neither {ADAPTER_STEM}.safetensors beside {CONFIG_FILE} nor {_WHOLE[0]}, itself "
            f"or in {', '.join(_FOLDERS)}. Write the path of the file."
        )
    return found


def _of_folder(folder: Path) -> dict[str, Path]:
    names = [*(f"{ADAPTER_STEM}{suffix}" for suffix in SUFFIXES), *_WHOLE]
    weights = [folder / name for name in names if (folder / name).is_file()]
    if len(weights) > 1 and weights[0].stem != weights[1].stem:
        raise LoraFilesError(f"{folder}: holds {weights[0].name} and {weights[1].name}. Write the path of one.")
    if not weights:
        return {}
    # Of one set of weights in two formats, the safe one.
    settings = folder / CONFIG_FILE
    beside = weights[0].stem == ADAPTER_STEM and settings.is_file()
    return {weights[0].name: weights[0]} | ({CONFIG_FILE: settings} if beside else {})
