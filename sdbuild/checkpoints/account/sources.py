"""The account of one source: a component's files, a pipeline's index, or a whole checkpoint in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.account.entry import Account, Entry, Kind, Use
from sdbuild.checkpoints.account.index import judge_index
from sdbuild.checkpoints.account.settings import Class, judge
from sdbuild.checkpoints.account.tensors import Network, judge_tensors, network
from sdbuild.checkpoints.account.tokenizers import judge_tokenizer
from sdbuild.checkpoints.account.towers import CLIP_TEXT, CLIP_VISION, SAFETY_CHECKER
from sdbuild.checkpoints.files import SINGLE_FILE, is_card
from sdbuild.checkpoints.header import Header, HeaderError, TensorHeader, read_header
from sdbuild.checkpoints.markers import PredictionType
from sdbuild.documents import DocumentError, read_json

CONFIG = "config.json"
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
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


PickleReader = Callable[[Path], Header]
"""Tells what a pickle holds, which takes torch: only a stage has one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a source.

    Attributes:
        component: a key of `JUDGES`.
        source: what messages call the source.
        prediction_type: what the recipe says that a single file's UNet predicts; None to go by the file.
        components: of a LoRA, what the recipe builds of that LoRAs change.
    """

    component: str
    source: str
    prediction_type: PredictionType | None = None
    components: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Key documents hold lists.
        object.__setattr__(self, "components", tuple(self.components))


Judge = Callable[[Asked, Mapping[str, Path], PickleReader | None], Iterator[Entry]]
"""What is asked, path in the source → file, and a reader of pickles → what becomes of everything in it."""


def account_of(asked: Asked, files: Mapping[str, Path], *, read_pickle: PickleReader | None = None) -> Account:
    """What becomes of everything in one source.

    Args:
        asked: which component, of what.
        files: path in the component's tree → file.
        read_pickle: reads the names in a pickle; without it, nothing is said of what a pickle holds.
    """
    return Account(asked.source, tuple(JUDGES[asked.component](asked, files, read_pickle)))


def _read_all(files: Mapping[str, Path]) -> dict[str, Any]:
    """Every JSON file's content; an exception's text where it cannot be read, and None for other files."""
    contents: dict[str, Any] = {}
    for name, path in files.items():
        contents[name] = None
        if name.endswith(".json"):
            try:
                contents[name] = read_json(path)
            except (OSError, DocumentError) as error:
                contents[name] = str(error)
    return contents


def _index(asked: Asked, files: Mapping[str, Path], read_pickle: PickleReader | None) -> Iterator[Entry]:
    return judge_index(_read_all(files))


def _tokenizer(asked: Asked, files: Mapping[str, Path], read_pickle: PickleReader | None) -> Iterator[Entry]:
    return judge_tokenizer(asked.component, files)


def _network(asked: Asked, files: Mapping[str, Path], read_pickle: PickleReader | None) -> Iterator[Entry]:
    for name in files:
        if is_card(name):
            yield Entry(name, Kind.FILE, name, Use.USED, _LICENSE)
    content = _read_all({CONFIG: files[CONFIG]} if CONFIG in files else {}).get(CONFIG)
    if not isinstance(content, dict):
        reason = "is missing" if content is None else f"is no JSON object ({content})"
        yield Entry(CONFIG, Kind.FILE, CONFIG, Use.REFUSED, f"{reason}; download it again")
        return
    yield Entry(CONFIG, Kind.FILE, CONFIG, Use.USED)
    says = "_class_name" if content.get("_class_name") else "architectures"
    class_name = content.get(says)
    if says == "architectures":
        class_name = class_name[0] if isinstance(class_name, list) and class_name else class_name or None
    allowed = _CLASSES[asked.component]
    if class_name is not None and class_name not in allowed:
        reason = f"is {class_name!r}; {asked.component} can be built from {' or '.join(allowed)}"
        if class_name == _MOTION:
            reason += ". This one draws videos (AnimateDiff)"
        yield Entry(CONFIG, Kind.SETTING, says, Use.REFUSED, reason)
        return
    known = network(class_name or allowed[0])
    assert known is not None
    settings = list(_settings(content, known))
    yield from settings
    if any(entry.use is Use.REFUSED for entry in settings):
        return  # what the tensors must be follows from settings that are wrong
    yield from _weights(content, known, files, read_pickle)


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


def _weights(
    config: Mapping[str, Any], known: Network, files: Mapping[str, Path], read_pickle: PickleReader | None
) -> Iterator[Entry]:
    tensors: dict[str, TensorHeader] = {}
    places: dict[str, str] = {}
    whole = True
    for name, path in sorted(files.items()):
        if name == CONFIG or is_card(name):
            continue
        yield Entry(name, Kind.FILE, name, Use.USED)
        if name.endswith(".json"):
            continue
        header = _header(path) if name.endswith(".safetensors") else read_pickle and read_pickle(path)
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


def _header(path: Path) -> Header | HeaderError:
    try:
        return read_header(path)
    except HeaderError as error:
        return error


def judge_metadata(place: str, metadata: Mapping[str, str]) -> Iterator[Entry]:
    """What becomes of the words in the header of a component's file."""
    for name in metadata:
        use, reason = (Use.HARMLESS, _METADATA[name]) if name in _METADATA else (Use.WARNED, "is not known")
        yield Entry(place, Kind.METADATA, name, use, reason)


def _single_file(asked: Asked, files: Mapping[str, Path], read_pickle: PickleReader | None) -> Iterator[Entry]:
    # Here, because it takes NumPy to load, which a build with nothing to do does without.
    from sdbuild.checkpoints.account.single_file import judge_single_file

    for name, path in files.items():
        if is_card(name):
            yield Entry(name, Kind.FILE, name, Use.USED, _LICENSE)
            continue
        yield Entry(name, Kind.FILE, name, Use.USED)
        header = _header(path) if name.endswith(".safetensors") else None
        if isinstance(header, HeaderError):
            yield Entry(name, Kind.FILE, name, Use.REFUSED, str(header))
        elif header is not None:
            yield from judge_single_file(name, path, header, asked.prediction_type)
        elif read_pickle is not None:
            yield from judge_single_file(name, None, read_pickle(path), asked.prediction_type)


def _part(asked: Asked, files: Mapping[str, Path], read_pickle: PickleReader | None) -> Iterator[Entry]:
    from sdbuild.checkpoints.account.parts import judge_part

    component = asked.component.removeprefix(PART)
    for name, path in files.items():
        yield Entry(name, Kind.FILE, name, Use.USED, _LICENSE if is_card(name) else "")
        if is_card(name) or name.endswith(".gguf"):
            continue  # of a GGUF file the tensors are told when they are taken
        header = _header(path) if name.endswith(".safetensors") else read_pickle and read_pickle(path)
        if isinstance(header, HeaderError):
            yield Entry(name, Kind.FILE, name, Use.REFUSED, str(header))
        elif header is not None:
            yield from judge_part(component, name, header)


def _lora(asked: Asked, files: Mapping[str, Path], read_pickle: PickleReader | None) -> Iterator[Entry]:
    from sdbuild.checkpoints.account.adapters import judge_lora

    return judge_lora(files, asked.components, pickles=read_pickle is not None)


PART = "part:"
"""Before a component's name: a file of that network alone, without its configuration."""
LORA = "lora"

JUDGES: dict[str, Judge] = {
    SINGLE_FILE: _single_file,
    LORA: _lora,
    **{f"{PART}{component}": _part for component in ("vae", "unet", "transformer", "controlnet")},
    "index": _index,
    **dict.fromkeys(("tokenizer", "tokenizer_2", "tokenizer_3"), _tokenizer),
    **dict.fromkeys(_CLASSES, _network),
}
"""What can be given account of: components of pipelines, and files of other kinds."""
