"""Palettize a UNet of real size by our path and by coremltools' `palettize_weights`.

    python -m tests.benchmarks.bench_palettize --model sd15 --bits 6

For tensors of fewer than 10,000 elements coremltools needs scikit-learn; where that is missing, its exact clustering,
which it uses for all others, serves them too. Each path runs in a fresh process, imports included, from package to
package. Then both results are compared tensor by
tensor: ours must not have a larger squared error for any of them.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tests.benchmarks import packages
from tests.benchmarks.harness import measure, python, report


def ours(source: Path, out: Path, bits: int) -> None:
    from sdbuild.coreml.palettize import palettize

    palettize(source, out, bits=bits)


def stock(source: Path, out: Path, bits: int) -> None:
    import coremltools as ct
    import coremltools.optimize as cto

    if find_spec("sklearn") is None:
        from coremltools.models.neural_network import quantization_utils
        from coremltools.optimize.coreml import _quantization_passes

        general = quantization_utils._get_kmeans_lookup_table_and_weight
        exact = functools.partial(general, force_kmeans1d=True)
        _quantization_passes._get_kmeans_lookup_table_and_weight = lambda bits, weight, **_: exact(bits, weight)

    config = cto.coreml.OpPalettizerConfig(mode="kmeans", nbits=bits)
    model = ct.models.MLModel(str(source), skip_model_load=True)
    cto.coreml.palettize_weights(model, cto.coreml.OptimizationConfig(global_config=config)).save(str(out))


def squared_errors(source: Path, palettized: Path) -> dict[str, float]:
    """Each palettized constant's error, by its name in the source, computed from the stored bytes."""
    from coremltools.optimize._utils import restore_elements_from_packed_bits

    from sdbuild.coreml.package import Package
    from sdbuild.coreml.program import main_block

    package, plain = Package.open(palettized), Package.open(source)
    assert package.weights is not None
    assert plain.weights is not None
    offsets = {
        operation.outputs[0].name: operation.attributes["val"].blobFileValue.offset
        for operation in main_block(plain).operations
        if operation.type == "const" and operation.attributes["val"].WhichOneof("value") == "blobFileValue"
    }
    errors = {}
    for operation in main_block(package).operations:
        if operation.type != "constexpr_lut_to_dense":
            continue
        name = operation.outputs[0].name.removesuffix("_palettized")
        table = operation.attributes["lut"]
        if table.WhichOneof("value") == "blobFileValue":
            entries = package.weights.raw(table.blobFileValue.offset).view(np.float16)
        else:
            entries = np.frombuffer(table.immediateValue.tensor.bytes.values, np.float16)
        values = plain.weights.raw(offsets[name]).view(np.float16)
        packed = package.weights.raw(operation.attributes["indices"].blobFileValue.offset)
        bits = int(np.log2(len(entries)))
        error, step = 0.0, 1 << 22  # a multiple of eight elements stands in whole bytes
        for start in range(0, len(values), step):
            part = values[start : start + step].astype(np.float64)
            some = packed[start * bits // 8 : (start + step) * bits // 8]
            indices = restore_elements_from_packed_bits(some, bits, len(part))
            error += float(((part - entries.astype(np.float64)[indices]) ** 2).sum())
        errors[name] = error
    return errors


def compare(source: Path, first: Path, second: Path) -> str:
    mine, theirs = squared_errors(source, first), squared_errors(source, second)
    larger = [name for name in mine if mine[name] > theirs[name] * (1 + 1e-12)]
    equal = sum(mine[name] == theirs[name] for name in mine)
    ratio = sum(mine.values()) / sum(theirs[name] for name in mine)
    return (
        f"{len(mine)} tensors (stock {len(theirs)}): larger error {len(larger)} {larger[:5]}, equal {equal}, "
        f"total error {ratio:.9f} of stock's"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["sd15", "sd21", "sdxl"], default="sd15")
    parser.add_argument("--attention", choices=["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"], default="ORIGINAL")
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--paths", default="ours,stock", help="which paths to run")
    parser.add_argument("--source", type=Path, help="a half-precision package; made where there is none")
    parser.add_argument("--run", choices=["ours", "stock"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        {"ours": ours, "stock": stock}[arguments.run](arguments.source, arguments.out, arguments.bits)
        return
    source = arguments.source or packages.unet(arguments.model, arguments.attention)
    name = f"{arguments.model} {arguments.attention} {arguments.bits} bits"
    paths = arguments.paths.split(",")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        measurements = [
            measure(
                f"{name} {path}",
                python(
                    "tests.benchmarks.bench_palettize",
                    *("--source", str(source), "--bits", str(arguments.bits)),
                    *("--run", path, "--out", f"{scratch}/{path}.mlpackage"),
                ),
            )
            for path in paths
        ]
        print(report(measurements, f"{name} stock"))
        if {"ours", "stock"} <= set(paths):
            print(compare(source, Path(scratch) / "ours.mlpackage", Path(scratch) / "stock.mlpackage"))


if __name__ == "__main__":
    main()
