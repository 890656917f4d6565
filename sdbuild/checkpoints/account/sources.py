"""The account of one source: a component's files, a pipeline's index, or a whole checkpoint in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.account.entry import Account, Entry, Kind, Use
from sdbuild.checkpoints.account.index import judge_index
from sdbuild.checkpoints.account.schedules import judge_schedule
from sdbuild.checkpoints.account.settings import Class, judge
from sdbuild.checkpoints.account.tensors import Network, judge_tensors, network
from sdbuild.checkpoints.account.tokenizers import judge_tokenizer
from sdbuild.checkpoints.account.towers import CLIP_TEXT, CLIP_VISION, SAFETY_CHECKER
from sdbuild.checkpoints.files import is_card
from sdbuild.checkpoints.header import Header, HeaderError, TensorHeader, read_header

CONFIG = "config.json"
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL",),
    "controlnet": ("ControlNetModel",),
    "t2i_adapter": ("T2IAdapter",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
    "text_encoder_2": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
    "text_encoder_3": ("T5EncoderModel", "T5ForConditionalGeneration", "T5Model"),
    "safety_checker": ("StableDiffusionSafetyChecker",),
}
"""Component → the classes that it can be built from."""

_MOTION = "UNetMotionModel"
_METADATA = {"format": "names the library that wrote the file"}
_LICENSE = "says the license"


def account_of(component: str, files: Mapping[str, Path], source: str) -> Account:
    """What becomes of everything in one component's files.

    Args:
        component: a key of `sdbuild.checkpoints.files.COMPONENT_FOLDERS`.
        files: path in the component's tree → file.
        source: what messages call the source.
    """
    match component:
        case "index":
            entries = judge_index(_read_all(files))
        case "scheduler":
            entries = iter(())  # the index holds it too, and is always there
        case "tokenizer" | "tokenizer_2" | "tokenizer_3":
            entries = judge_tokenizer(component, files)
        case _:
            entries = _network(component, files)
    return Account(source, tuple(entries))


def _read_all(files: Mapping[str, Path]) -> dict[str, Any]:
    """Every JSON file's content; an exception's text where it cannot be read, and None for other files."""
    contents: dict[str, Any] = {}
    for name, path in files.items():
        contents[name] = None
        if name.endswith(".json"):
            try:
                contents[name] = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                contents[name] = str(error)
    return contents


def _network(component: str, files: Mapping[str, Path]) -> Iterator[Entry]:
    for name in files:
        if is_card(name):
            yield Entry(name, Kind.FILE, name, Use.USED, _LICENSE)
    content = _read_all({CONFIG: files[CONFIG]} if CONFIG in files else {}).get(CONFIG)
    if not isinstance(content, dict):
        reason = "is missing" if content is None else f"is no JSON object ({content})"
        yield Entry(CONFIG, Kind.FILE, CONFIG, Use.REFUSED, f"{reason}; download it again")
        return
    yield Entry(CONFIG, Kind.FILE, CONFIG, Use.USED)
    class_name = content.get("_class_name") or next(iter(content.get("architectures") or ()), None)
    allowed = _CLASSES[component]
    if class_name is not None and class_name not in allowed:
        reason = f"is {class_name!r}; {component} can be built from {' or '.join(allowed)}"
        if class_name == _MOTION:
            reason += ". This one draws videos (AnimateDiff)"
        yield Entry(CONFIG, Kind.SETTING, "_class_name", Use.REFUSED, reason)
        return
    known = network(class_name or allowed[0])
    assert known is not None
    settings = list(_settings(content, known))
    yield from settings
    if any(entry.use is Use.REFUSED for entry in settings):
        return  # what the tensors must be follows from settings that are wrong
    yield from _weights(content, known, files)


def _settings(config: Mapping[str, Any], known: Network) -> Iterator[Entry]:
    yield from judge(CONFIG, config, known.known)
    nested: tuple[tuple[str, Class], ...] = ()
    if known.known is CLIP_TEXT:
        nested = (("text_config", CLIP_TEXT),)
    elif known.known is SAFETY_CHECKER:
        nested = (("vision_config", CLIP_VISION), ("vision_config_dict", CLIP_VISION))
    for name, inner in nested:
        if isinstance(config.get(name), Mapping):
            for entry in judge(CONFIG, config[name], inner):
                yield Entry(CONFIG, entry.kind, f"{name}.{entry.name}", entry.use, entry.reason)
        elif config.get(name) is not None:
            yield Entry(CONFIG, Kind.SETTING, name, Use.REFUSED, "must be a mapping")


def _weights(config: Mapping[str, Any], known: Network, files: Mapping[str, Path]) -> Iterator[Entry]:
    tensors: dict[str, TensorHeader] = {}
    places: dict[str, str] = {}
    whole = True
    for name, path in sorted(files.items()):
        if name == CONFIG or is_card(name):
            continue
        yield Entry(name, Kind.FILE, name, Use.USED)
        if name.endswith(".json"):
            continue
        header = _header(path)
        if isinstance(header, HeaderError):
            yield Entry(name, Kind.FILE, name, Use.REFUSED, str(header))
            return
        if header is None:
            whole = False
            continue
        yield from judge_metadata(name, header.metadata)
        tensors |= header.tensors
        places |= dict.fromkeys(header.tensors, name)
    if whole:
        last = next(reversed(places.values()), "")
        for entry in judge_tensors("", tensors, config, known):
            yield Entry(places.get(entry.name, last), entry.kind, entry.name, entry.use, entry.reason)


def _header(path: Path) -> Header | HeaderError | None:
    """The header of a safetensors file; None for a pickle, whose names are known only when it is read."""
    if path.suffix != ".safetensors" and not path.name.endswith(".safetensors"):
        return None
    try:
        return read_header(path)
    except HeaderError as error:
        return error


def judge_metadata(place: str, metadata: Mapping[str, str]) -> Iterator[Entry]:
    """What becomes of the words in the header of a component's file."""
    for name in metadata:
        use, reason = (Use.HARMLESS, _METADATA[name]) if name in _METADATA else (Use.WARNED, "is not known")
        yield Entry(place, Kind.METADATA, name, use, reason)


__all__ = ["account_of", "judge_metadata", "judge_schedule"]
