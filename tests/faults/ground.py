"""A build to hurt, and what must hold whatever was done to it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.store import Store
from tests.plan.conftest import RECIPE, write_checkpoint

WRITE, SYNC, RENAME, LINK, MAKE, OPEN, REMOVE = (1 << bit for bit in range(7))
EVERYTHING = WRITE | SYNC | RENAME | LINK | MAKE | OPEN | REMOVE
KILL = 0
DOCUMENTED = (0, 1, 2, 130)
"""Exit statuses of docs/reference/exit-statuses.md that a fault of the machine may give; 70 is a mistake of ours."""
_ROOT = Path(__file__).resolve().parents[2]


def compile_shim(folder: Path) -> Path | None:
    """The library that makes system calls fail; None where there is no C compiler, or another system than Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@dataclass
class Outcome:
    """How one build ended; the fields are those of the driver's answers."""

    hung: bool
    status: int | None
    signal: int | None
    calls: int
    out: str
    err: str


class Ground:
    """A workspace with one recipe, and a process that builds it."""

    def __init__(self, root: Path, shim: Path) -> None:
        self.root = root
        self.folder = root / "work"
        self.cache = root / "cache"
        self.elsewhere = root.with_name(f"{root.name}-elsewhere")
        for folder in (self.folder / "recipes", self.elsewhere):
            folder.mkdir(parents=True)
        write_checkpoint(self.elsewhere / "checkpoint")
        (self.elsewhere / "thesis.txt").write_text("not to be touched")
        recipe = "\n".join(line.strip() for line in RECIPE.strip().splitlines())
        recipe = recipe.replace("../checkpoint", str(self.elsewhere / "checkpoint"))
        (self.folder / "recipes/phone.yaml").write_text(recipe + "\n")
        environment = os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": str(_ROOT), "COLUMNS": "200"}
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", str(shim)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=_ROOT,
        )
        assert self._read() == "ready"
        self.untouched = self._elsewhere()
        calm = self.run()
        assert calm.status == 0, calm.err
        self.calm = self.bundle()
        self._calls: dict[int, int] = {}
        self.calls = self.calls_of(EVERYTHING)

    def close(self) -> None:
        """End the process."""
        assert self._driver.stdin is not None
        self._driver.stdin.close()
        self._driver.wait(10)

    def several(self, builders: int, *words: str, **faults: Any) -> list[Outcome]:
        """Run a command line several times at once."""
        order = {
            "words": ["recipe=phone", *words],
            "folder": str(self.folder),
            "cache": str(self.cache),
            "root": str(self.root),
            "kinds": EVERYTHING,
            "moment": 0,
            "code": KILL,
            "builders": builders,
        }
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps(order | faults) + "\n")
        self._driver.stdin.flush()
        return [Outcome(**answer) for answer in self._read()]

    def run(self, *words: str, **faults: Any) -> Outcome:
        """Run one command line."""
        return self.several(1, *words, **faults)[0]

    def run_from_nothing(self, kinds: int, moment: int, code: int) -> Outcome:
        """Build with an empty cache and one fault."""
        self.clear()
        return self.run(kinds=kinds, moment=moment, code=code)

    def calls_of(self, kinds: int) -> int:
        """How many calls of some kinds a build from nothing makes."""
        if kinds not in self._calls:
            self._calls[kinds] = self.run_from_nothing(kinds, 0, KILL).calls
        return self._calls[kinds]

    def clear(self) -> None:
        """Start anew."""
        for folder in (self.cache, self.folder / "build"):
            shutil.rmtree(folder, ignore_errors=True)

    def bundle(self) -> dict[str, str]:
        """The digests of the bundle's files."""
        place = self.folder / "build/phone/iphone-15-pro"
        return _digests(place)

    def must_hold(self, ended: Outcome, doing: str) -> None:
        """No wrong bundle, no loss, no traceback, no hang, nothing elsewhere; and the next build is as if calm."""
        assert not ended.hung, f"{doing}: hung\n{ended.err}"
        assert "Traceback" not in ended.err + ended.out, f"{doing}:\n{ended.err}"
        assert ended.signal is not None or ended.status in DOCUMENTED, f"{doing}: status {ended.status}\n{ended.err}"
        if ended.status:
            assert ended.err.strip() or ended.out.strip(), f"{doing}: status {ended.status} without a word"
        if ended.status == 0:
            assert self.bundle() == self.calm, f"{doing}: status 0, and another bundle\n{ended.err}"
        self.must_recover(doing)

    def must_recover(self, doing: str) -> None:
        """The next build makes the bundle that a calm one makes, and no blob of the cache is other than its name."""
        again = self.run()
        said = f"{again.err}\n{again.out}"
        assert again.status == 0, f"{doing}, then a build without a fault: status {again.status}\n{said}"
        assert self.bundle() == self.calm, f"{doing}: the next build makes another bundle"
        assert Store(self.cache).verify() == [], f"{doing}: the cache holds damaged blobs after the next build"
        assert self._elsewhere() == self.untouched, f"{doing}: files elsewhere were changed"

    def _elsewhere(self) -> dict[str, str]:
        return _digests(self.elsewhere)

    def _read(self) -> Any:
        assert self._driver.stdout is not None
        line = self._driver.stdout.readline()
        assert line, "the driver has ended"
        return json.loads(line)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def damage(ground: Ground, chance: random.Random) -> str:
    """Do to a file of cache or output what disks, editors and people do; says what."""
    folders = (ground.cache, ground.folder / "build")
    found = [path for folder in folders for path in folder.rglob("*")]
    files = [path for path in found if path.is_file() and not path.is_symlink()]  # through a link it would be elsewhere
    path = chance.choice(sorted(files))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    way = chance.choice(("flip", "truncate", "empty", "delete", "swap", "append", "folder", "garbage", "link"))
    match way:
        case "flip" if data:
            position = chance.randrange(len(data))
            data[position] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
        case "truncate" if data:
            path.write_bytes(data[: chance.randrange(len(data))])
        case "swap":
            other = chance.choice([file for file in sorted(files) if file != path])
            other.chmod(0o644)
            third = path.with_name(path.name + ".swapped")
            path.rename(third)
            other.rename(path)
            third.rename(other)
            return f"swap {path.relative_to(ground.root)} and {other.relative_to(ground.root)}"
        case "append":
            path.write_bytes(bytes(data) + chance.randbytes(7))
        case "folder":
            path.unlink()
            path.mkdir()
        case "garbage":
            path.write_bytes(chance.randbytes(chance.randrange(1, 100)))
        case "link":
            path.unlink()
            path.symlink_to(ground.elsewhere / "thesis.txt")
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()
    return f"{way} {path.relative_to(ground.root)}"
