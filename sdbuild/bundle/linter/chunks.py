"""A UNet in two chunks: how it is fed, and what the pair is as one model."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.bundle.features import Feature, Interface
from sdbuild.bundle.linter.violation import Violation
from sdbuild.interface.contract import Row


def lint_feed(name: str, first: Interface, second: Interface, row: Row) -> Iterator[Violation]:
    """Whether chunk 2 can be fed from the original inputs and chunk 1's outputs alone."""
    given = {feature.name: feature for feature in first.outputs}
    original = {feature.name: feature for feature in first.inputs}
    for feature in second.inputs:
        where = f"{name}Chunk2, {feature.name}"
        source = given.get(feature.name) or original.get(feature.name)
        if source is None:
            if not _is_original(feature, row):
                yield Violation("chunk-feed", where, "neither an original input nor an output of chunk 1")
        elif source.shape != feature.shape:
            giver = "chunk 1 gives" if feature.name in given else "chunk 1 takes"
            yield Violation("chunk-feed", where, f"shape {list(feature.shape)}, but {giver} {list(source.shape)}")
    taken = {feature.name for feature in second.inputs}
    for name_, feature in given.items():
        if name_ not in taken:
            yield Violation("chunk-feed", f"{name}Chunk1, {feature.name}", "an output that chunk 2 does not take")


def joined(first: Interface, second: Interface, row: Row) -> Interface:
    """The pair as one model: the original inputs of either chunk, the outputs of the second."""
    given = {feature.name for feature in first.outputs}
    inputs = {feature.name: feature for feature in first.inputs}
    for feature in second.inputs:
        if feature.name not in given and _is_original(feature, row):
            inputs.setdefault(feature.name, feature)
    return Interface(tuple(inputs.values()), second.outputs, second.specification_version)


def _is_original(feature: Feature, row: Row) -> bool:
    named = feature.name in {port.name for port in row.inputs}
    numbered = row.numbered is not None and row.numbered.side == "inputs" and row.numbered.has(feature.name)
    return named or numbered
