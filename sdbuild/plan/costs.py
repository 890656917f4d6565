"""What each action of a graph is expected to take, before it runs: as measured where the same has run, else estimated.

An earlier run counts only when it did the same to as much: equal parameters (but for bits and names), and inputs of
nearly equal size. Everything else is estimated from the number of weights, the sizes in the recipe, and how fast this
machine was so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

from sdbuild.checkpoints.facts import CheckpointFacts
from sdbuild.estimate import build_cost
from sdbuild.estimate.build_cost import Work
from sdbuild.estimate.bundle_memory import weight_counts
from sdbuild.plan.action import Action
from sdbuild.plan.status import Statuses
from sdbuild.recipe.recipe import Recipe
from sdbuild.store import EMPTY, ActionResult, Store

_SAME_SIZE = 0.02
_READ_BYTES_PER_SECOND = 1e9
_SMALL_FILES_SECONDS = 1.0
_WITHOUT_WEIGHTS = ("index", "scheduler", "tokenizer", "tokenizer_2", "tokenizer_3")
# Other bits, gates and names cost nearly the same.
_NOT_SIZING = ("bits", "gates", "method", "origin", "recipe", "model", "target", "quantization", "compression")
_SPEEDS = (0.1, 20.0)
_CALIBRATED_FROM = 1.0  # seconds; shorter runs say little of a machine
_SMALL = 0  # tokenizers, configurations, figures and samples: next to nothing beside weights


@dataclass(frozen=True, slots=True)
class Cost:
    """What an action is expected to take; None where that is not known.

    Attributes:
        seconds: wall time.
        memory: bytes that could not be given back.
        bytes: size of the result; 0 for what is small.
        download: bytes that have to come from the Hub first; 0 for all but its sources.
        measured: whether the same has run here before.
    """

    seconds: float | None = None
    memory: int | None = None
    bytes: int | None = None
    download: int | None = 0
    measured: bool = False


class Costs:
    """The costs of actions, by what the cache and the checkpoint say."""

    def __init__(self, store: Store, statuses: Statuses, recipe: Recipe, facts: CheckpointFacts | None) -> None:
        """Prepare to estimate; `facts` say what is known of the pipeline's checkpoint."""
        self._store = store
        self._statuses = statuses
        self._weights = weight_counts(recipe, facts) if facts is not None else {}
        self._sizes: dict[str, int | None] = {}

    def __getitem__(self, action: Action) -> Cost:
        """What an action is expected to take."""
        size = self.size(action)
        past = self._measured(action)
        if past is not None:
            return Cost(past.seconds, past.memory, size, self._download(action), measured=True)
        work = self._work(action)
        if action.files:
            return Cost((size or 0) / _READ_BYTES_PER_SECOND, 0, size)
        if action.stage.name in ("source", "prediction") and size == _SMALL:
            return Cost(_SMALL_FILES_SECONDS, 0, size)
        if work is None:
            return Cost(None, None, size, self._download(action))
        seconds = build_cost.seconds(action.stage.name, work)
        if seconds is not None:
            seconds *= self._slowness
        return Cost(seconds, build_cost.memory(action.stage.name, work), size, self._download(action))

    def size(self, action: Action) -> int | None:
        """Bytes of an action's result: as it is in the cache, else as it is expected; None where that is not known."""
        if action.name not in self._sizes:
            digest = self._statuses[action].digest
            tree = self._store.load_tree(digest) if digest is not None else None
            self._sizes[action.name] = (
                sum(entry.size for entry in tree.entries) if tree is not None else self._expected_size(action)
            )
        return self._sizes[action.name]

    def _expected_size(self, action: Action) -> int | None:
        parameters, inputs = action.parameters, action.inputs
        match action.stage.name:
            case "source":
                return self._source_size(action)
            case "fuse" | "embed":
                return self.size(inputs["checkpoint"])
            case "convert":
                numbers = self._numbers(action)
                return None if numbers is None else int(numbers * (4 if parameters["precision"] == "float32" else 2))
            case "quantize":
                whole = self.size(inputs["package"])
                package = inputs["package"].parameters
                width = 32 if package.get("precision") == "float32" else 16
                return None if whole is None else whole * int(parameters["bits"]) // width
            case "chunk" | "compile":
                return self.size(inputs["package"])
            case "bundle":
                sizes = [self.size(made) for role, made in inputs.items() if _is_model(role, made)]
                return None if None in sizes else sum(size for size in sizes if size is not None)
        return _SMALL

    def _source_size(self, action: Action) -> int | None:
        if action.files:
            return sum(path.stat().st_size for path in action.files.values() if path.is_file())
        if (locked := action.parameters.get("files")) is not None:
            return sum(int(file["size"]) for file in locked.values())
        if action.component in _WITHOUT_WEIGHTS:
            return _SMALL
        numbers = self._both_halves() if action.component == "vae" else self._count(action.component)
        if numbers is None:
            return None
        return int(numbers * (4 if action.parameters.get("precision") == "float32" else 2))

    def _both_halves(self) -> float | None:
        """The weights of an autoencoder, of which a bundle may hold one half."""
        halves = [self._count("vae_decoder"), self._count("vae_encoder")]
        known = [half for half in halves if half is not None]
        if len(known) == len(halves):
            return sum(known)
        # An encoder has about two thirds of its decoder's weights.
        return 1.7 * known[0] if known else None

    def _count(self, component: str) -> int | None:
        """How many weights a part has, by the checkpoint's configuration."""
        kind = component.partition("-")[0]
        return self._weights.get(component, self._weights.get(f"{kind}-0"))

    def _download(self, action: Action) -> int | None:
        """Bytes that the Hub has to send; what its own cache already holds is not looked for."""
        if action.stage.name != "source" or action.files or action.inputs or "revision" not in action.parameters:
            return 0
        return self.size(action)

    def _numbers(self, action: Action) -> float | None:
        """How many weights go through an action."""
        if (known := self._count(action.component)) is not None:
            return known
        checkpoint = action.inputs.get("checkpoint")
        size = self.size(checkpoint) if checkpoint is not None else None
        return None if size is None else size / 2

    def _work(self, action: Action) -> Work | None:
        """What an action works on; None where the size of its input is not known."""
        stage, parameters = action.stage.name, action.parameters
        match stage:
            case "quantize" | "chunk" | "compile":
                size = self.size(action.inputs["package"])
                return None if size is None else Work(size / 2, bits=int(parameters.get("bits") or 0))
            case "bundle":
                size = self.size(action)
                return None if size is None else Work(size / 2)
            case "verify":
                reference = self._work(action.inputs["reference"])
                questions = len(parameters.get("gates") or ()) or (2 if parameters["after"] == "convert" else 1)
                samples = action.inputs["reference"].parameters["samples"]
                return None if reference is None else replace(reference, passes=questions * samples)
            case "convert" | "fuse" | "embed" | "reference":
                numbers = self._numbers(action)
                return None if numbers is None else _executed(stage, numbers, parameters)
        return None

    def _measured(self, action: Action) -> ActionResult | None:
        """The newest run of the same kind that did the same to as much."""
        wanted = _sizing(action.parameters)
        sizes = self._input_bytes(action)
        for document, result in self._store.history(_kind(action)):
            if _sizing(document["parameters"]) != wanted:
                continue
            before = {role: self._tree_bytes(digest) for role, digest in document["inputs"].items()}
            if set(before) == set(sizes) and all(_alike(before[role], sizes[role]) for role in sizes):
                return result
        return None

    def _input_bytes(self, action: Action) -> dict[str, int | None]:
        there = {role: made for role, made in action.inputs.items() if self._statuses[made].digest != EMPTY}
        return {role: self.size(producer) for role, producer in there.items()}

    def _tree_bytes(self, digest: str) -> int | None:
        tree = self._store.load_tree(digest)
        return None if tree is None else sum(entry.size for entry in tree.entries)

    @cached_property
    def _slowness(self) -> float:
        """How much longer this machine takes than the one that was measured, by what has run here."""
        ratios = [result.seconds / expected for result, expected in self._past() if result.seconds > _CALIBRATED_FROM]
        lowest, highest = _SPEEDS
        return min(max(median(ratios), lowest), highest) if ratios else 1.0

    def _past(self) -> Iterator[tuple[ActionResult, float]]:
        """Earlier runs whose seconds the estimate tells too."""
        for name in self._store.histories():
            stage = name.partition(":")[0]
            if stage not in ("convert", "quantize", "chunk"):
                continue
            for document, result in self._store.history(name):
                role = "checkpoint" if stage == "convert" else "package"
                size = self._tree_bytes(document["inputs"].get(role, ""))
                if size is not None:
                    work = Work(size / 2, bits=int(document["parameters"].get("bits") or 0))
                    if (expected := build_cost.seconds(stage, work)) is not None:
                        yield result, expected


def _executed(stage: str, numbers: float, parameters: Mapping[str, Any]) -> Work:
    component = str(parameters.get("component", ""))
    points = float(parameters.get("latent_height", 1) * parameters.get("latent_width", 1))
    if component.startswith("text_encoder"):
        points = float(parameters.get("text_sequence_length") or 77)
    passes = 0.0
    if stage == "reference":
        passes = float(parameters["samples"]) * (2 if parameters["precision"] == "float16" else 1)
    return Work(numbers, points, int(parameters.get("batch") or 1), passes, build_cost.share_of(component))


def _is_model(role: str, action: Action) -> bool:
    return action.stage.name in ("convert", "quantize", "chunk", "compile") and not role.startswith("verify-")


def _sizing(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that decide how much there is to do."""
    return {name: value for name, value in parameters.items() if name not in _NOT_SIZING}


def _alike(before: int | None, now: int | None) -> bool:
    if before is None or now is None:
        return False
    return abs(before - now) <= _SAME_SIZE * max(before, now)


def _kind(action: Action) -> str:
    return action.name.partition("@")[0]
