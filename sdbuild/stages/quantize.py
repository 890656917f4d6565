"""The quantize stage: the large weights of a package become tables of a few values and indices into them, or integers.

Inputs: ``package``, an artifact with one package. Parameters: ``bits`` for each weight; ``method``, ``palette`` or
``linear`` (8-bit integers with a scale for each output channel); ``group_size``, the output channels that share a
table, or None for one table a tensor. The result holds the smaller package under the same name, ``modules.json`` as it
was, and ``quantization.json`` with the error of every tensor.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from sdbuild.compression import Compression, compression_of
from sdbuild.stages import Stage
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """How weights are made smaller.

    Attributes:
        bits: for each weight.
        method: `palette`, or `linear` for 8-bit integers with a scale for each output channel.
        group_size: output channels that share a table; None for one table a tensor.
    """

    bits: int
    method: str
    group_size: int | None

    @classmethod
    def of(cls, compression: Compression) -> Parameters:
        """The parameters that say it."""
        return cls(compression.bits, compression.method, compression.group_size)

    @property
    def compression(self) -> Compression:
        """What they say."""
        return compression_of(self.method, self.bits, self.group_size)


_COMPRESSORS = "sdbuild.coreml.compressors.*"

STAGE = Stage(
    name="quantize",
    version=1,
    tools=("coremltools", "numpy"),
    parameters=Parameters,
    title="{} with palettized weights",
    group="palettize weights",
    reads="a package",
    result="the package with palettized weights; the error of every tensor",
    follows=("convert",),
)


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Make one package's weights smaller.

    Raises:
        ProgramError: a weight is NaN or infinite, or the deployment target cannot hold that many bits.
    """
    (source,) = inputs["package"].glob("*.mlpackage")
    compressor = importlib.import_module(_COMPRESSORS.replace("*", params.method))
    report = compressor.compress(params.compression, source, out / source.name, progress)
    shutil.copyfile(inputs["package"] / "modules.json", out / "modules.json")
    (out / "quantization.json").write_text(
        json.dumps(asdict(report), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
