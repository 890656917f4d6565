"""Checkpoints changed in one place at random, and what the account says of each change.

Headers and JSON alone are changed, as the account reads them alone: of a weight there is its name, type and shape in
the file, and a hole where its numbers would be. A change is sound where the account names what was changed: used with
another value, warned of, refused, or harmless with a reason.

    python -m tests.checkpoints.mutations [--cases N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from sdbuild.builtin import tiny
from sdbuild.checkpoints.account import Account, Entry, Kind, Use
from sdbuild.checkpoints.account.settings import Setting
from sdbuild.checkpoints.account.sources import JUDGES, LORA, Asked, account_of
from sdbuild.checkpoints.account.tokenizers import SPECIAL_TOKENS, T5_TOKENIZER
from sdbuild.checkpoints.files import SINGLE_FILE, select_files
from sdbuild.checkpoints.header import read_header
from sdbuild.checkpoints.lora.file import Lora
from sdbuild.checkpoints.single_file import describe
from sdbuild.checkpoints.single_file_tensors import translated
from sdbuild.errors import SdbuildError
from tests.pipeline import single_files

STRANGE = "sorcery"
WIDTH, CONTEXT = 32, 64
"""Of the layer of tiny-sd's UNet that the LoRAs change, and of its text."""
_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}
_NO_WEIGHTS = ("I64", "I32", "U8", "BOOL")


@dataclass
class Tensor:
    """A tensor in a header; its numbers where something reads them before a build."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | None = None


@dataclass
class Weights:
    """A safetensors file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """The file, in which numbers that nothing reads are a hole."""
        header: dict[str, Any] = {"__metadata__": self.metadata} if self.metadata else {}
        end = 0
        for name, tensor in self.tensors.items():
            start, end = end, end + prod(tensor.shape) * _WIDTHS[tensor.dtype]
            header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
            for name, tensor in self.tensors.items():
                if tensor.data is not None:
                    file.seek(8 + len(text) + header[name]["data_offsets"][0])
                    file.write(tensor.data[: prod(tensor.shape) * _WIDTHS[tensor.dtype]])


Document = dict[str, Any]
Content = Weights | Document


@dataclass(frozen=True)
class Source:
    """One thing that an account is given of.

    Attributes:
        name: for people.
        asked: what is asked of it.
        files: path in it → what the file holds; files that are not changed are only paths.
        also: a tensor's name → its names in diffusers' layout, or its pair's, by which a missing one is told.
        network: of a LoRA, what it changes.
        whole: what is known of settings in files that the account tells as wholes.
    """

    name: str
    asked: Asked
    files: Mapping[str, Content | Path]
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    network: Path | None = None
    whole: Mapping[str, Setting] = field(default_factory=dict)

    def account(self, folder: Path) -> Account:
        """What `check` and `plan` say of it."""
        paths: dict[str, Path] = {}
        for name, content in self.files.items():
            path = paths[name] = content if isinstance(content, Path) else folder / name.replace("/", "+")
            if isinstance(content, Weights):
                content.write(path)
            elif not isinstance(content, Path):
                path.write_text(json.dumps(content))
        account = account_of(self.asked, paths)
        if self.network is not None and not account.refused:
            try:
                Lora(paths, 1.0, self.name).changes("unet", read_header(self.network).tensors)
            except SdbuildError as error:
                refused = Entry(self.name, Kind.FILE, self.name, Use.REFUSED, str(error))
                return Account(account.source, (*account, refused))
        return account


@dataclass(frozen=True)
class Change:
    """What was done to a source.

    Attributes:
        what: for people.
        gone: the thing's name where it is no longer there.
        new: the name of a thing that nothing knows, which was not there.
        wrong: the name of a thing that holds now what it cannot.
        other: the name of a thing that holds another value of its kind.
    """

    what: str
    gone: str | None = None
    new: str | None = None
    wrong: str | None = None
    other: str | None = None


def _header(path: Path, readable: Callable[[str], bool] = lambda name: False) -> Weights:
    header, content = read_header(path), path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    stated = json.loads(content[8:start])
    tensors = {
        name: Tensor(
            tensor.dtype,
            tuple(tensor.shape),
            content[start + stated[name]["data_offsets"][0] : start + stated[name]["data_offsets"][1]]
            if readable(name)
            else None,
        )
        for name, tensor in header.tensors.items()
    }
    return Weights(tensors, dict(header.metadata))


def _content(path: Path) -> Content | Path:
    if path.suffix == ".safetensors":
        return _header(path)
    # Vocabularies are no settings.
    if path.suffix == ".json" and path.name not in ("vocab.json", "tokenizer.json"):
        document: Document = json.loads(path.read_text())
        return document
    return path


def builtins(folder: Path) -> Iterator[Source]:
    """Every component of every built-in checkpoint."""
    for name in tiny.NAMES:
        root = folder / name
        tiny.generate(name, root)
        listing = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        components = {Path(path).parent.name for path in listing} - {"", "scheduler"}
        components |= {"index"} if "model_index.json" in listing else set()
        components |= {kind for kind in ("controlnet", "t2i_adapter") if kind.split("_")[0] in name}
        for component in sorted(components & JUDGES.keys()):
            files = {
                # Beside an index, the networks' configurations are judged with the networks.
                path: root / each if component == "index" and path.endswith("/config.json") else _content(root / each)
                for path, each in select_files(component, listing).items()
            }
            told = {"tokenizer_3": T5_TOKENIZER, "tokenizer": SPECIAL_TOKENS, "tokenizer_2": SPECIAL_TOKENS}
            whole = told[component].settings if component in told else {}
            yield Source(f"{name} {component}", Asked(component, name), files, whole=whole)


def wholes(folder: Path) -> Iterator[Source]:
    """Checkpoints in one file, with and without markers."""
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "sd1": (single_files.SD1, {}),
        "sdxl": (single_files.SDXL, {}),
        "v-pred": (single_files.SDXL, {"v_pred": single_files.EMPTY, "ztsnr": single_files.EMPTY}),
        "playground": (single_files.SDXL, single_files.EDM),
        "cosxl": (single_files.SDXL, single_files.COSXL),
    }
    metadata = {"modelspec.title": "mine", "modelspec.resolution": "64x64"}
    for name, (network, extra) in kinds.items():
        path = single_files.write(folder / f"{name}.safetensors", network, extra, metadata)
        weights = _header(path, lambda key, extra=extra: key in extra)  # type: ignore[misc]
        yield Source(f"{name} in one file", Asked(SINGLE_FILE, name), {path.name: weights}, _in_diffusers_layout(path))


def _in_diffusers_layout(path: Path) -> dict[str, tuple[str, ...]]:
    tensors = read_header(path).tensors
    return {
        name: tuple(translated(component, folder, name.removeprefix(folder.prefix), tensor))
        for component, folder in describe({name: tensor.shape for name, tensor in tensors.items()}).folders.items()
        for name, tensor in tensors.items()
        if name.startswith(folder.prefix)
    }


def _floats(*shape: int) -> Tensor:
    import numpy as np

    return Tensor("F32", shape, np.full(shape, 0.25, "<f4").tobytes())


def loras(network: Path) -> Iterator[Source]:
    """LoRAs in kohya's and peft's layouts."""
    layers = {
        f"down_blocks.0.attentions.0.transformer_blocks.0.attn{number}.to_{kind}": width
        for number in (1, 2)
        for kind, width in (("q", WIDTH), ("k", (WIDTH, CONTEXT)[number - 1]))
    }
    kohya: dict[str, Tensor] = {}
    peft: dict[str, Tensor] = {}
    also: dict[str, tuple[str, ...]] = {}
    for layer, width in layers.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        for part, shape in (("down", (4, width)), ("up", (WIDTH, 4))):
            kohya[f"{name}.lora_{part}.weight"] = _floats(*shape)
            peft[f"unet.{layer}.lora_{'A' if part == 'down' else 'B'}.weight"] = _floats(*shape)
        kohya[f"{name}.alpha"] = _floats()
    for tensor in (*kohya, *peft):
        if not tensor.endswith("alpha"):  # halves of a pair are told by the pair
            also[tensor] = (tensor.partition(".lora_")[0],)
    files: dict[str, Content | Path] = {
        "a.safetensors": Weights(kohya, {"ss_network_dim": "4", "ss_network_alpha": "2", "format": "pt"})
    }
    asked = Asked(LORA, "lora", None, ("unet", "text_encoder"))
    yield Source("kohya's LoRA", asked, files, also, network)
    settings = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": False, "use_dora": False, "rank_pattern": {},
        "alpha_pattern": {"attn1.to_q": 16}, "lora_dropout": 0.0, "target_modules": ["to_q", "to_k"],
        "bias": "none", "inference_mode": True, "init_lora_weights": True,
    }  # fmt: skip
    files = {"adapter_model.safetensors": Weights(peft, {"format": "pt"}), "adapter_config.json": settings}
    yield Source("peft's LoRA", asked, files, also, network)


def sources(folder: Path) -> list[Source]:
    """One of each kind."""
    return [*builtins(folder), *wholes(folder), *loras(next((folder / "tiny-sd/unet").glob("*.safetensors")))]


def changed(source: Source, chance: random.Random) -> tuple[Source, Change]:
    """A source with one thing removed, renamed, of another type or value, or added."""
    places = [name for name, content in source.files.items() if not isinstance(content, Path) and content]
    place = chance.choice(places)
    content = deepcopy(source.files[place])
    assert not isinstance(content, Path)
    if isinstance(content, Weights):
        change = _change_metadata(content, chance) if chance.random() < 0.2 else _change_tensors(content, chance)
    else:
        change = _change_settings(content, chance)
    return replace(source, files={**source.files, place: content}), change


def _misspelt(name: str, taken: Mapping[str, Any], chance: random.Random) -> str:
    """A name with one letter too many or another one in its place."""
    while True:
        index = chance.randrange(len(name))
        letter = chance.choice("abcdefghijklmnopqrstuvwxyz")
        other = f"{name[:index]}{letter}{name[index + chance.randrange(2) :]}"
        if other not in taken:
            return other


def _renamed(entries: dict[str, Any], old: str, new: str) -> None:
    items = [(new if name == old else name, value) for name, value in entries.items()]
    entries.clear()
    entries.update(items)


def _change_tensors(weights: Weights, chance: random.Random) -> Change:
    tensors = weights.tensors
    name = chance.choice(list(tensors))
    tensor = tensors[name]
    kind = chance.choice(("remove", "rename", "retype", "resize", "halve", "add", "add beside"))
    if kind == "remove":
        del tensors[name]
        return Change(f"tensor {name} removed", gone=name)
    if kind == "rename":
        new = _misspelt(name, tensors, chance)
        _renamed(tensors, name, new)
        return Change(f"tensor {name} renamed to {new}", gone=name, new=new)
    if kind == "retype":
        tensor.dtype = chance.choice([dtype for dtype in _NO_WEIGHTS if dtype != tensor.dtype])
        return Change(f"tensor {name} as {tensor.dtype}", wrong=name)
    if kind == "resize" and tensor.shape:
        axis = chance.randrange(len(tensor.shape))
        tensor.shape = tuple(size + (index == axis) * 3 for index, size in enumerate(tensor.shape))
        return Change(f"tensor {name} as {tensor.shape}", wrong=name)
    if kind == "halve":
        tensor.dtype = "BF16"
        return Change(f"tensor {name} as BF16", other=name)
    new = STRANGE if kind == "add" else f"{name.rpartition('.')[0]}.{STRANGE}"
    tensors[new] = Tensor("F32", (4,))
    return Change(f"tensor {new} added", new=new)


def _change_metadata(weights: Weights, chance: random.Random) -> Change:
    metadata = weights.metadata
    if not metadata or chance.random() < 0.4:
        metadata[STRANGE] = "yes"
        return Change(f"metadata {STRANGE} added", new=STRANGE)
    name = chance.choice(list(metadata))
    kind = chance.choice(("remove", "rename", "change"))
    if kind == "remove":
        del metadata[name]
        return Change(f"metadata {name} removed", gone=name)
    if kind == "rename":
        new = _misspelt(name, metadata, chance)
        _renamed(metadata, name, new)
        return Change(f"metadata {name} renamed to {new}", gone=name, new=new)
    metadata[name] = STRANGE
    return Change(f"metadata {name} changed", other=name)


def _change_settings(document: Document, chance: random.Random) -> Change:
    # A setting of peft's that is off changes nothing under any name.
    name = chance.choice([name for name, value in document.items() if value or value is None] or list(document))
    value = document[name]
    kind = chance.choice(("remove", "rename", "retype", "change", "add"))
    if kind == "remove":
        del document[name]
        return Change(f"setting {name} removed", gone=name)
    if kind == "rename":
        new = _misspelt(name, document, chance)
        _renamed(document, name, new)
        return Change(f"setting {name} renamed to {new}", gone=name, new=new)
    if kind == "retype":
        document[name] = {STRANGE: 1} if isinstance(value, str | list | None) else STRANGE
        return Change(f"setting {name} is {document[name]!r} and was {value!r}", wrong=name)
    if kind == "change":
        document[name] = _other(value)
        return Change(f"setting {name} is {document[name]!r} and was {value!r}", other=name)
    document[STRANGE] = chance.choice((1, True, "yes", [1]))
    return Change(f"setting {STRANGE} added", new=STRANGE)


def _other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value[:-1], _other(value[-1])] if value else [STRANGE]
    if isinstance(value, dict):
        return {**value, STRANGE: 3}
    return STRANGE


def fault(source: Source, before: Account, after: Account, change: Change) -> str | None:
    """Why a change passed unsaid; None where it was told, or is known to change nothing."""
    told = [entry for entry in after if entry.use in (Use.WARNED, Use.REFUSED)]
    old = {(entry.kind, entry.name): entry for entry in before}
    said = [entry for entry in told if old.get((entry.kind, entry.name)) != entry]

    def names(name: str) -> bool:
        known = (name, *source.also.get(name, ()))
        return any(each in f"{entry.name} {entry.reason}" for entry in said for each in known)

    def uses(account: Account, name: str) -> set[Use]:
        return {entry.use for entry in account if entry.name == name}

    if silent := [entry for entry in after if entry.use is not Use.USED and not entry.reason]:
        return f"{silent[0].name} is {silent[0].use} without a reason"
    if change.gone is not None and not names(change.gone):
        was = [entry for entry in before if entry.name == change.gone]
        if not was and change.gone not in source.whole:
            return f"{change.gone} was there and was not accounted for"
        if any(entry.kind is Kind.TENSOR and entry.use is Use.USED for entry in was):
            return f"{change.gone} was used, is gone, and nothing says so"
    if change.new is not None and not names(change.new):
        now = uses(after, change.new)
        if not now and not said:
            return f"{change.new} is in no account"
        if now == {Use.USED}:
            return f"{change.new} is said to be used, and nothing knows it"
    if change.wrong is not None and not names(change.wrong):
        now = uses(after, change.wrong)
        if not now and change.wrong in source.whole and source.whole[change.wrong].harmless:
            return None
        if now != {Use.HARMLESS}:
            return f"{change.wrong} is no value of its kind, and is {' and '.join(now) or 'in no account'}"
    known = {*source.whole, *(entry.name for entry in after)}
    if change.other is not None and not names(change.other) and change.other not in known:
        return f"{change.other} is in no account"
    return None


def run(folder: Path, cases: int, seed: int) -> Iterator[str]:
    """Change sources one after the other; each line is a change that passed unsaid."""
    originals = sources(folder)
    accounts = {source.name: source.account(folder) for source in originals}
    for name, account in accounts.items():
        if account.refused or account.warned:
            yield f"{name}: unchanged, says {(account.refused + account.warned)[0].sentence}"
    for case in range(cases):
        source = originals[case % len(originals)]
        # A case is found again by its number alone.
        mutant, change = changed(source, random.Random(seed * 1_000_003 + case))
        try:
            wrong = fault(mutant, accounts[source.name], mutant.account(folder), change)
        except SdbuildError as error:
            wrong = None if str(error) else "an error without words"
        except Exception as error:  # whatever it is, it is no answer
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            yield f"{source.name}, case {case}: {change.what}: {wrong}"


def main() -> int:
    """Print what passed unsaid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = list(run(Path(folder), arguments.cases, arguments.seed))
    print(*faults, f"{arguments.cases} changes, {len(faults)} unsaid", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
