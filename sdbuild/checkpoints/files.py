"""Which files of a checkpoint a component needs: the least that is enough, whatever variant and format is there.

One function serves both ways into a build: planning reads a local directory's listing, the `source` stage a Hub
repository's. A component's files become a tree of their own, rooted at the component's folder, so that a change in
one component's files touches nothing else.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.components import CONDITIONERS, PIPELINE_FOLDERS, TOKENIZERS
from sdbuild.errors import SdbuildError

COMPONENT_FOLDERS: Mapping[str, str] = {
    **{folder: folder for folder in (*PIPELINE_FOLDERS, *TOKENIZERS.values(), "scheduler")},
    **dict.fromkeys((*CONDITIONERS, "index"), ""),
}
"""Source component → its folder in a checkpoint of diffusers' layout ("" is the checkpoint's root)."""

# Networks that repositories hold alone too, with their files at the root.
_ALONE = ("vae", "unet", "transformer")

BUILTIN_GENERATOR = 2
"""Raised when the bytes of the generated (`builtin:`) checkpoints change."""

_TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# A model's metadata says its license.
_CARD = re.compile(r"README\.md|LICENSE[^/]*")
_INDEX_FILES = re.compile(r"model_index\.json|[^/]+/(config|scheduler_config)\.json|README\.md|LICENSE[^/]*")
# `model.fp16-00001-of-00002.safetensors` and the older `model-00001-of-00002.fp16.safetensors` both occur.
_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model|model)"
    r"(?:-\d{5}-of-\d{5})?(?:\.(?P<variant>[a-z][a-z0-9_]*))?(?:-\d{5}-of-\d{5})?"
    r"\.(?P<format>safetensors|bin)(?P<index>\.index(?:\.(?P<index_variant>[a-z][a-z0-9_]*))?\.json)?"
)
_SHARD = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})")
# Best first; training leftovers such as `non_ema` only when nothing else is there. Half precision is half the download,
# and all that a float16 model can hold.
_VARIANTS: Mapping[str, tuple[str, ...]] = {
    "float16": ("fp16", "", "fp32", "bf16", "ema"),
    "float32": ("", "fp32", "bf16", "fp16", "ema"),
}
_FORMATS = ("safetensors", "bin")


SINGLE_FILE = "checkpoint"
"""The source component that is a whole single-file checkpoint, from which the others are then taken."""


ADAPTER_STEM, ADAPTER_SETTINGS = "adapter_model", "adapter_config.json"
"""What peft calls an adapter's weights, and the settings beside them."""


def is_card(name: str) -> bool:
    """Whether a file says what a model's license is."""
    return _CARD.fullmatch(name) is not None


def files_in(folder: Path) -> dict[str, Path]:
    """Every file of an artifact, by its path in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def select_single_file(file: str, names: Iterable[str], beside: str | None = None) -> dict[str, str]:
    """Choose a single file of a repository, and the model's card; otherwise as `select_files`.

    Args:
        file: the file's path in the repository.
        names: every file of the repository.
        beside: the name of another file of the same folder that belongs to it, to take if it is there.

    Raises:
        CheckpointFilesError: there is no such file.
    """
    names = list(names)
    if file not in names:
        others = ", ".join(name for name in names if name.endswith((".safetensors", ".ckpt")) and "/" not in name)
        raise CheckpointFilesError(f"there is no {file}" + (f"; there are {others}" if others else ""))
    folder, _, own = file.rpartition("/")
    chosen = {own: file}
    other = f"{folder}/{beside}" if folder else beside
    if beside is not None and other in names:
        chosen[beside] = str(other)
    return chosen | {name: name for name in sorted(names) if is_card(name)}


class CheckpointFilesError(SdbuildError):
    """A checkpoint lacks files that a component needs."""

    exit_status = 2


def select_files(component: str, names: Iterable[str], *, precision: str = "float32") -> dict[str, str]:
    """Choose a component's files.

    Args:
        component: a key of `COMPONENT_FOLDERS`.
        names: every file of the checkpoint, as `/`-separated paths relative to its root.
        precision: what the component will be built in; `float16` is content with half-precision weights.

    Returns:
        Path in the component's tree → path in the checkpoint, sorted by the former.

    Raises:
        CheckpointFilesError: a file that the component cannot do without is missing.
    """
    folder = COMPONENT_FOLDERS[component]
    names = list(names)
    if component in _ALONE and f"{folder}/config.json" not in names and "config.json" in names:
        folder = ""  # a repository of that network alone
    prefix = f"{folder}/" if folder else ""
    local = {name[len(prefix) :]: name for name in names if name.startswith(prefix)}
    match component:
        case "tokenizer" | "tokenizer_2":
            chosen = [name for name in _TOKENIZER_FILES if name in local]
            if "tokenizer.json" not in chosen:
                _require(component, prefix, ("vocab.json", "merges.txt"), chosen)
        case "tokenizer_3":
            # T5's; the Swift package reads these two files and no vocabulary of its own.
            chosen = ["tokenizer.json", "tokenizer_config.json"]
            _require(component, prefix, chosen, local)
        case "scheduler":
            chosen = ["scheduler_config.json"]
            _require(component, prefix, chosen, local)
        case "index":
            chosen = [name for name in local if _INDEX_FILES.fullmatch(name)]
            _require(component, prefix, ("model_index.json",), chosen)
        case _:
            _require(component, prefix, ("config.json",), local)
            chosen = ["config.json", *_weights(component, prefix, local, precision)]
            local |= {name: name for name in names if _CARD.fullmatch(name)}
            chosen += [name for name in local if _CARD.fullmatch(name)]
    return {name: local[name] for name in sorted(chosen)}


def _require(component: str, prefix: str, needed: Iterable[str], present: Iterable[str]) -> None:
    missing = sorted(set(needed) - set(present))
    if missing:
        files = ", ".join(prefix + name for name in missing)
        raise CheckpointFilesError(
            f"the checkpoint has no {files}, which {component} needs; "
            "give a checkpoint in diffusers' layout or take the component out of the recipe"
        )


def _weights(component: str, prefix: str, names: Iterable[str], precision: str) -> list[str]:
    """The best complete set of weight files: one format, one variant, whole or sharded with its index."""
    sets: dict[tuple[str, str, bool], list[str]] = {}
    for name in names:
        match = _WEIGHTS.fullmatch(name)
        if match:
            variant = match["variant"] or match["index_variant"] or ""
            sharded = _SHARD.search(name) is not None or match["index"] is not None
            sets.setdefault((match["format"], variant, sharded), []).append(name)
    missing = {key: _missing(files) for key, files in sets.items()}
    complete = {key: files for key, files in sets.items() if not missing[key]}
    if not complete:
        absent = [f"{prefix}{name}" for names in missing.values() for name in names]
        what = f"{', '.join(absent)} missing" if absent else f"no *.safetensors and no *.bin in {prefix or 'its root'}"
        raise CheckpointFilesError(f"the checkpoint has no weights for {component}: {what}")
    order = _VARIANTS[precision]

    def rank(key: tuple[str, str, bool]) -> tuple[bool, int, int, str, bool]:
        weight_format, variant, sharded = key
        known = order.index(variant) if variant in order else len(order)
        # The format weighs more than a known variant: half-precision safetensors beat a full-precision pickle.
        return known == len(order), _FORMATS.index(weight_format), known, variant, sharded

    return complete[min(complete, key=rank)]


def _missing(files: Iterable[str]) -> list[str]:
    """The names that a set of weight files lacks: shards, or all weights where there is only their index."""
    shards = {name: match for name in files if (match := _SHARD.search(name))}
    if not shards:
        weights = [name for name in files if not name.endswith(".json")]
        return [] if weights else ["the shards of " + name for name in files]
    first, match = next(iter(shards.items()))
    wanted = (
        f"{first[: match.start()]}-{number:05}-of-{match['count']}{first[match.end() :]}"
        for number in range(1, int(match["count"]) + 1)
    )
    return [name for name in wanted if name not in shards]


def write_config(path: Path, content: Mapping[str, Any]) -> None:
    """Write a configuration file of a checkpoint: the same bytes for the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
