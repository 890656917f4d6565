"""Look-up tables for a package's large weights."""

from __future__ import annotations

from pathlib import Path

from sdbuild.compression.method import Compression
from sdbuild.coreml.compression import CompressionReport, Progress
from sdbuild.coreml.palettize import palettize


def compress(compression: Compression, package: Path, out: Path, progress: Progress) -> CompressionReport:
    """Write a palettized copy of `package`; raises what `palettize` does."""
    if compression.group_size is None:
        return palettize(package, out, bits=compression.bits, progress=progress)
    return palettize(
        package,
        out,
        bits=compression.bits,
        granularity="per_grouped_channel",
        group_size=compression.group_size,
        progress=progress,
    )
