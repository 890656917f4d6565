"""The chunk stage: a UNet becomes two packages of nearly equal stored size.

Inputs: ``package``, an artifact with one package, palettized or not. The result holds ``<Name>Chunk1.mlpackage`` and
``<Name>Chunk2.mlpackage``, and ``modules.json`` as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from sdbuild.stages import Stage
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """There is nothing to choose."""


STAGE = Stage(
    name="chunk",
    version=1,
    tools=("coremltools",),
    parameters=Parameters,
    title="{} split in two",
    group="split UNets in two",
    reads="a package",
    result="the package in two",
    follows=("convert", "quantize"),
)


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Split one package.

    Raises:
        ProgramError: the program cannot be split.
    """
    from sdbuild.coreml.chunk import chunk

    (source,) = inputs["package"].glob("*.mlpackage")
    first, second = (out / f"{source.stem}Chunk{number}.mlpackage" for number in (1, 2))
    progress(0.0, f"splitting {source.stem}")
    chunk(source, first, second)
    shutil.copyfile(inputs["package"] / "modules.json", out / "modules.json")
    progress(1.0, f"{first.stem} and {second.stem}")
