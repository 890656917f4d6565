"""8-bit integers for a package's large weights."""

from __future__ import annotations

from pathlib import Path

from sdbuild.compression.method import Compression
from sdbuild.coreml.compression import CompressionReport, Progress
from sdbuild.coreml.linear import quantize_linearly


def compress(compression: Compression, package: Path, out: Path, progress: Progress) -> CompressionReport:
    """Write a copy of `package` with integers; raises what `quantize_linearly` does."""
    return quantize_linearly(package, out, progress=progress)
