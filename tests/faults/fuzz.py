"""Broken files by the ten thousand, by hand: `python -m tests.faults.fuzz --cases 100000`; the suite runs a sample.

Each kind of file that comes from outside is changed at random, as bytes and as the tree that it spells, and read as
a build would. What is read or refused in words is well; anything else is printed with the file that did it, and so
is what took ten seconds or a gigabyte.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.builtin import tiny
from sdbuild.bundle.linter import lint_bundle
from sdbuild.checkpoints.card import read_card
from sdbuild.checkpoints.facts import read_checkpoint_facts, read_single_file_facts
from sdbuild.checkpoints.pickle_header import pickle_header
from sdbuild.errors import SdbuildError
from sdbuild.recipe.load import load_recipe, load_target
from sdbuild.recipe.lock import read_lock
from sdbuild.recipe.preflight import preflight
from tests.bundle.bundles import write_resources

SECONDS = 10
BYTES = 1_000_000_000
_CATALOGUE = Path(__file__).resolve().parents[2]
_NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "../..", "/etc/passwd", "~", "\x00", "\ud800", "é" * 300, "1", "NaN", "none", "builtin:", "*", "[[[["),
    *([], {}, [[]], [None], {"": None}, [0] * 50, {"a": {"b": {"c": []}}}),
)
_SCRAPS = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\t",
        b"&a ",
        b"*a",
        b"!!python/object:os.system ",
        b"<<: ",
        b"- ",
    ),
    *(
        b"[[[[[[[[",
        b"{",
        b"}",
        b'"',
        b"'",
        b": ",
        b"# ",
        b"---\n",
        b"%YAML 9.9\n",
        b"1e999",
        b"NaN",
        b"-",
        b"99999999999999999999",
    ),
    *(
        b"\xed\xa0\x80",
        b"\\ud800",
        b"__metadata__",
        b"dtype",
        b"data_offsets",
        b"F16",
        b"cos\nsystem\n",
        b"R.",
        b"\x80\x04",
    ),
)


@dataclass(frozen=True)
class Target:
    """A kind of file: one that is right, and how it is read."""

    seed: bytes
    read: Callable[[Path], object]
    name: str
    tree: bool = False


def mutated(target: Target, chance: random.Random) -> bytes:
    """A changed file."""
    data = target.seed
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if target.tree and chance.random() < 0.6:
            with contextlib.suppress(ValueError, RecursionError):
                data = json.dumps(_changed(json.loads(data), chance)).encode("utf-8", "surrogatepass")
                continue
        data = _torn(data, chance)
    return data


def _changed(tree: Any, chance: random.Random) -> Any:
    """The tree with one node replaced, removed, doubled or renamed."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(tree)
    if not places:
        return chance.choice(_NASTY)
    holder, key = chance.choice(places)
    match chance.randrange(5):
        case 0 if isinstance(holder, dict):
            holder[str(chance.choice(_NASTY))] = holder.pop(key)
        case 1:
            del holder[key]
        case 2:
            other, its = chance.choice(places)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = json.loads(json.dumps(other[its]))
        case _:
            holder[key] = chance.choice(_NASTY)
    return tree


def _torn(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a bit flipped, a stretch removed, doubled or moved, or a scrap put in."""
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((1, 2, 8, 64, 1024)))
    match chance.randrange(6):
        case 0 if start < len(data):
            return data[:start] + bytes([data[start] ^ 1 << chance.randrange(8)]) + data[start + 1 :]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + data[start:]
        case 3:
            return data[:start]
        case 4:
            return data[:start] + chance.choice(_SCRAPS) * chance.choice((1, 1, 1, 50)) + data[start:]
    return data[:start] + chance.randbytes(4) + data[start:]


def targets(folder: Path) -> dict[str, Target]:
    """Every kind of file, with what it needs around it in `folder`."""
    found: dict[str, Target] = {}
    devices = [_CATALOGUE / "targets"]
    phone = load_target("iphone-15-pro", devices)

    def recipe(path: Path) -> None:
        loaded = load_recipe(str(path), [_CATALOGUE / "recipes"], targets=["iphone-15-pro"])
        preflight(loaded, phone, None)

    for name in ("sd15-controlnet-ios", "sdxl-ios", "shapes", "tiny-sd"):
        text = (_CATALOGUE / f"recipes/{name}.yaml").read_bytes()
        found[f"recipe {name}"] = Target(text, recipe, "fuzzed.yaml")
    found["target"] = Target(
        (_CATALOGUE / "targets/iphone-15-pro.yaml").read_bytes(), lambda path: load_target(str(path), []), "fuzzed.yaml"
    )
    lock = {
        "format": 1,
        "repositories": [
            {
                "version": "organisation/name",
                "revision": "main",
                "commit": "a" * 40,
                "files": {"unet/config.json": {"size": 10, "sha256": "b" * 64}},
                "sources": {"unet/float16": {"config.json": "unet/config.json"}},
            }
        ],
    }
    found["lock"] = Target(
        json.dumps(lock).encode(), lambda path: read_lock(path.with_name("fuzzed.yaml")), "fuzzed.lock", tree=True
    )
    checkpoint = folder / "checkpoint"
    tiny.generate("tiny-sdxl", checkpoint)
    for name in ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder_2/config.json",
                 "scheduler/scheduler_config.json"):  # fmt: skip
        found[f"checkpoint {name}"] = Target(
            (checkpoint / name).read_bytes(),
            lambda path: read_checkpoint_facts(checkpoint),
            f"checkpoint/{name}",
            tree=True,
        )
    weights = checkpoint / "text_encoder/model.safetensors"
    length = int.from_bytes(weights.read_bytes()[:8], "little")
    header = json.loads(weights.read_bytes()[8 : 8 + length])

    def headed(path: Path) -> None:
        text = path.read_bytes()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
        read_single_file_facts(path)

    single = {f"cond_stage_model.transformer.{name}": entry for name, entry in header.items() if name != "__metadata__"}
    single["__metadata__"] = {"modelspec.architecture": "stable-diffusion-v1", "modelspec.prediction_type": "epsilon"}
    found["header"] = Target(json.dumps(single).encode(), headed, "fuzzed.safetensors", tree=True)
    found["raw header"] = Target(weights.read_bytes()[: 8 + length], read_single_file_facts, "fuzzed.safetensors")
    found["pickle"] = Target(_pickle(folder), pickle_header, "fuzzed.ckpt")
    card = (
        "---\nlicense: openrail++\nlicense_name: x\ntags: [a, b]\nbase_model: &m one\nother: *m\n---\n# Title\n\ntext\n"
    )
    found["card"] = Target(card.encode(), lambda path: read_card(path.parent), "README.md")
    bundle = folder / "bundle"
    write_resources(bundle / "Resources", "sd")
    document = {
        "format": 1,
        "models": {},
        "image": {"height": 128, "width": 96},
        "compiled": False,
        "swift_package": {},
    }
    found["bundle"] = Target(
        json.dumps(document).encode(), lambda path: list(lint_bundle(bundle)), "bundle/bundle.json", tree=True
    )
    for name in ("vocab.json", "merges.txt"):
        found[f"bundle {name}"] = Target(
            (bundle / "Resources" / name).read_bytes(),
            lambda path: list(lint_bundle(bundle)),
            f"bundle/Resources/{name}",
            tree=name.endswith("json"),
        )
    return found


def _pickle(folder: Path) -> bytes:
    import torch

    place = folder / "seed.ckpt"
    torch.save(
        {"state_dict": {"model.weight": torch.zeros(2, 3), "model.bias": torch.zeros(2)}, "global_step": 3}, place
    )
    return place.read_bytes()


class TooLongError(Exception):
    """Reading took more than `SECONDS`."""


def try_one(target: Target, data: bytes, folder: Path) -> str:
    """Read a file; the empty string where it was read or refused in words, else what happened."""
    place = folder / target.name
    before = place.read_bytes() if place.exists() else None
    place.write_bytes(data)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        target.read(place)
    except SdbuildError as error:
        said = str(error)
        return "" if said.strip() else "refused without a word"
    except BaseException as error:  # anything else is what is looked for
        return "".join(traceback.format_exception(error)[-4:])
    finally:
        signal.alarm(0)
        if before is None:
            place.unlink(missing_ok=True)
        else:
            place.write_bytes(before)
    return ""


def _too_long(number: int, frame: object) -> None:
    raise TooLongError(f"more than {SECONDS} seconds")


def run(
    cases: int, seed: int, folder: Path, kinds: Mapping[str, Target] | None = None
) -> tuple[Counter[str], list[str]]:
    """Try `cases` files spread over all kinds; how many of each, and what went wrong."""
    kinds = kinds or targets(folder)
    done: Counter[str] = Counter()
    wrong = []
    names = list(kinds)
    for number in range(cases):
        name = names[number % len(names)]
        data = mutated(kinds[name], random.Random(f"{seed} {number}"))
        done[name] += 1
        if happened := try_one(kinds[name], data, folder):
            wrong.append(f"{name}, case {number} of seed {seed}: {happened}\n{data[:2000]!r}")
    return done, wrong


def main() -> int:
    """Run many in a process of bounded memory."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=16)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        kinds = targets(folder)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        began = time.monotonic()
        done, wrong = run(asked.cases, asked.seed, folder, kinds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n\n".join(wrong[:40]))
    for name, number in done.items():
        print(f"{name}: {number}")
    print(f"{sum(done.values())} cases, {len(wrong)} went wrong, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
