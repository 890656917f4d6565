"""The account of LoRAs and textual inversions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdbuild.checkpoints.account.entry import Entry, Kind, Use
from sdbuild.checkpoints.account.parts import judge_metadata_of_adapter
from sdbuild.checkpoints.checkpoint import FLOATING, read_metadata
from sdbuild.checkpoints.files import is_card
from sdbuild.checkpoints.lora.file import Lora
from sdbuild.checkpoints.lora.kinds import AdapterError, module_changes
from sdbuild.checkpoints.lora.names import BUNDLED
from sdbuild.checkpoints.lora.settings import METADATA, OF_TRAINING
from sdbuild.errors import SdbuildError

_WORD = "is a word of its own, trained along; name the same file under textual_inversions to use it"


def judge_lora(files: Mapping[str, Path], components: tuple[str, ...], *, pickles: bool) -> Iterator[Entry]:
    """What becomes of everything in a LoRA.

    Args:
        files: path in the source → file.
        components: what the recipe has of that LoRAs change; empty where that is not known.
        pickles: whether pickles may be read, which takes torch.
    """
    weights = {name: path for name, path in files.items() if not is_card(name)}
    for name in files:
        yield Entry(name, Kind.FILE, name, Use.USED, "says the license" if is_card(name) else "")
    if not pickles and any(not name.endswith((".safetensors", ".json")) for name in weights):
        return
    try:
        lora = Lora(weights, 1.0, "it")
    except SdbuildError as error:
        place = next(iter(weights), "")
        yield Entry(place, Kind.FILE, place, Use.REFUSED, str(error).removeprefix("it: "))
        return
    for module in lora.modules:
        try:
            module_changes(module, {}, lora.weight)
        except AdapterError as error:
            yield Entry(module.place, Kind.TENSOR, module.name, Use.REFUSED, str(error))
            continue
        reached = not components or module.component in components
        reason = "" if reached else f"is for {module.component}, which the recipe does not build"
        for tensor in module.parts.values():
            if tensor.dtype not in FLOATING:
                what = f"is stored as {tensor.dtype}; weights are {', '.join(FLOATING)}"
                yield Entry(module.place, Kind.TENSOR, tensor.name, Use.REFUSED, what)
            else:
                yield Entry(module.place, Kind.TENSOR, tensor.name, Use.USED if reached else Use.WARNED, reason)
    yield from _without_alpha(lora)
    for place, name in lora.bundled:
        match = BUNDLED.fullmatch(name)
        yield Entry(place, Kind.TENSOR, name, Use.WARNED, f"`{match['token']}` {_WORD}" if match else _WORD)
    for name, path in weights.items():
        if name.endswith(".safetensors"):
            yield from judge_metadata_of_adapter(name, read_metadata(path), (METADATA,))
        elif name.endswith(".json"):
            for setting in json.loads(path.read_bytes()):
                harmless = setting in OF_TRAINING
                reason = "says how it was trained; the result is in the tensors" if harmless else ""
                yield Entry(name, Kind.SETTING, setting, Use.HARMLESS if harmless else Use.USED, reason)


def _without_alpha(lora: Lora) -> Iterator[Entry]:
    """Pairs whose scale is not said in a file that says it of others: no trainer writes so."""
    stated = {module.place for module in lora.modules if "alpha" in module.parts}
    for module in lora.modules:
        if module.place in stated and "down" in module.parts and "alpha" not in module.parts:
            reason = "is missing, and others in the file have one: this pair is taken with a scale of 1"
            yield Entry(module.place, Kind.TENSOR, f"{module.name}.alpha", Use.WARNED, reason)
