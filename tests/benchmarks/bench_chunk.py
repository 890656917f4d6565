"""Split a UNet of real size in two by our path and by coremltools' `bisect_model`.

    python -m tests.benchmarks.bench_chunk --model sd15

Each path runs in a fresh process, imports included, from package to packages; the stock path without its check of the
output's correctness, which needs a Mac. `--bits` palettizes the package first.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks import packages
from tests.benchmarks.harness import measure, python, report


def ours(source: Path, out: Path) -> None:
    from sdbuild.coreml.chunk import chunk

    chunk(source, out / "UnetChunk1.mlpackage", out / "UnetChunk2.mlpackage")


def stock(source: Path, out: Path) -> None:
    import coremltools as ct

    ct.models.utils.bisect_model(str(source), str(out), check_output_correctness=False)


def sizes(out: Path) -> str:
    """Bytes of each package in a folder."""
    return ", ".join(
        f"{package.name} {sum(file.stat().st_size for file in package.rglob('*') if file.is_file()) / 1e6:.1f} MB"
        for package in sorted(out.glob("*.mlpackage"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["sd15", "sd21", "sdxl"], default="sd15")
    parser.add_argument("--attention", choices=["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"], default="ORIGINAL")
    parser.add_argument("--bits", type=int, help="palettize first")
    parser.add_argument("--paths", default="ours,stock", help="which paths to run")
    parser.add_argument("--source", type=Path, help="a package; made where there is none")
    parser.add_argument("--run", choices=["ours", "stock"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        {"ours": ours, "stock": stock}[arguments.run](arguments.source, arguments.out)
        return
    source = arguments.source or packages.unet(arguments.model, arguments.attention)
    name = f"{arguments.model} {arguments.attention} chunk"
    measurements, results = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        if arguments.bits:
            from sdbuild.coreml.palettize import palettize

            palettize(source, Path(scratch) / "Unet.mlpackage", bits=arguments.bits)
            source = Path(scratch) / "Unet.mlpackage"
        for path in arguments.paths.split(","):
            out = Path(scratch) / path
            out.mkdir()
            shared = ["--source", str(source), "--run", path, "--out", str(out)]
            measurements.append(measure(f"{name} {path}", python("tests.benchmarks.bench_chunk", *shared)))
            results.append(f"{path}: {sizes(out)}")
    print(report(measurements, f"{name} stock"))
    print("\n".join(results))


if __name__ == "__main__":
    main()
