"""Broken files that go where no file went before, by hand: `python -m tests.faults.guided [--cases 100000] [KIND …]`.

Atheris (libFuzzer for Python; `pip install atheris`) counts which branches of the readers a file reaches, and keeps for
further changes those files that reach new ones. Kinds and changes are those of `tests.faults.fuzz`; each kind has a
process.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

_ONE = "--one"


def _guide(name: str, cases: int, folder: Path) -> None:
    """Try one kind of file in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["sdbuild"]):
        from tests.faults import fuzz

        kind = fuzz.targets(folder)[name]

    def one(data: bytes) -> None:
        if happened := fuzz.try_one(kind, data, folder):
            raise AssertionError(happened)

    def changed(data: bytes, most: int, seed: int) -> bytes:
        target = fuzz.Target(data, kind.read, kind.name, kind.tree)
        return fuzz.mutated(target, random.Random(seed))[:most]

    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(kind.seed)
    options = [f"-atheris_runs={cases}", "-max_len=100000", "-verbosity=0", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=changed)
    atheris.Fuzz()


def main() -> int:
    """Run every kind that was asked for, in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.guided", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--cases", type=int, default=100_000, help="over all kinds together")
    parser.add_argument(_ONE, action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        with tempfile.TemporaryDirectory() as folder:
            _guide(asked.kinds[0], asked.cases, Path(folder))
        return 0
    from tests.faults import fuzz

    with tempfile.TemporaryDirectory() as folder:
        names = asked.kinds or list(fuzz.targets(Path(folder)))
    broken = 0
    for name in names:
        command = [sys.executable, "-m", "tests.faults.guided", _ONE, name, "--cases", str(asked.cases // len(names))]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        failed = "AssertionError" in ran.stderr or ran.returncode not in (0, None)
        broken += failed
        print(f"{name}: {'BROKEN' if failed else 'well'}, {asked.cases // len(names)} cases", flush=True)
        if failed:
            print(ran.stdout[-3000:], ran.stderr[-3000:], flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
