"""The real program in folders of its own: command lines run as processes, with temporary recipes and caches."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.store import Store

CHECKOUT = Path(__file__).resolve().parents[2]

PHONE = {
    "name": "phone",
    "description": "A tiny pipeline for a phone",
    "model": '{version: "builtin:tiny-sd"}',
    "components": "[text_encoder, unet, vae_decoder]",
    "attention_implementation": "SPLIT_EINSUM",
    "latent": "{height: 8, width: 8}",
    "unet": "{batch: 1, chunks: 2}",
    "quantization": "{unet: 6}",
    "targets": "[iphone-15-pro]",
}
"""The recipe that most tests build: one target, a palettized and chunked UNet."""

DESK = PHONE | {
    "name": "desk",
    "description": "The same checkpoint for two Macs, one of which leaves the UNet as it is",
    "unet": "{batch: 1, chunks: 1}",
    "quantization": "{unet: 8}",
    "targets": "[mac-studio-m2-ultra, macbook-pro-m1-max]",
    "overrides": "{macbook-pro-m1-max: {quantization: {unet: none}}}",
}
"""Another recipe on the same checkpoint, whose targets need different things."""


@dataclass(frozen=True)
class Ran:
    """What one command line did.

    Attributes:
        status: the exit status.
        executed: the actions that worker processes were started for, sorted.
        cpu_seconds: what the process and its children used.
    """

    status: int
    out: str
    err: str
    executed: list[str]
    cpu_seconds: float

    def rows(self) -> dict[str, str]:
        """A plan's rows: action → the rest of its line."""
        table = self.out.split("\n\n")[0]  # the second one is on memory
        return dict(line.split(maxsplit=1) for line in table.splitlines()[1:-1])

    def to_run(self) -> list[str]:
        """The actions that a plan wants to run, sorted."""
        return sorted(name for name, rest in self.rows().items() if rest.startswith("run"))


@dataclass(frozen=True)
class Workspace:
    """A folder to type command lines in, and a cache."""

    folder: Path
    cache: Path

    def recipe(self, lines: Mapping[str, str], **changes: str) -> None:
        """Write a recipe of this folder."""
        text = "".join(f"{key}: {value}\n" for key, value in {**lines, **changes}.items())
        path = self.folder / "recipes" / f"{lines['name']}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def start(self, *words: str, program: str = "sdbuild", **environment: str) -> "subprocess.Popen[str]":
        """Start a command line in a process group of its own."""
        return subprocess.Popen(
            [str(executable(program)), *words],
            cwd=CHECKOUT if program == "doit" else self.folder,
            env=os.environ | {"SDBUILD_CACHE": str(self.cache), "HF_HUB_OFFLINE": "1"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def __call__(self, *words: str, program: str = "sdbuild", **environment: str) -> Ran:
        """Run a command line to its end."""
        before, used = set(self.logs()), _cpu_seconds()
        process = self.start(*words, program=program, **environment)
        out, err = process.communicate()
        executed = sorted(action for log, action in self.logs().items() if log not in before)
        return Ran(process.returncode, out, err, executed, _cpu_seconds() - used)

    def logs(self) -> dict[Path, str]:
        """Every log of a worker process with the action that it ran."""
        decoder = json.JSONDecoder()
        return {log: decoder.raw_decode(log.read_text())[0]["action"] for log in (self.cache / "logs").glob("*.log")}

    def bundle(self, recipe: str = "phone", target: str = "iphone-15-pro", out: str = "build") -> Path:
        """Where a bundle stands."""
        return self.folder / out / recipe / target

    def blob(self, slot: str, path: str) -> Path:
        """The cache's file that holds one file of a task's artifact."""
        store = Store(self.cache, read_only=True)
        result = store.recorded(store.slots()[slot])
        assert result is not None
        places = store.locate(result.tree)
        assert places is not None
        return places[path]

    def clone(self, folder: Path) -> "Workspace":
        """A copy of folder and cache, with nothing shared."""
        shutil.copytree(self.folder, folder / "work")
        shutil.copytree(self.cache, folder / "cache")
        return Workspace(folder / "work", folder / "cache")


def executable(name: str) -> Path:
    """An installed command of this Python."""
    return Path(sys.executable).with_name(name)


def content(bundle: Path) -> dict[str, str]:
    """Every file of a directory with the digest of its bytes."""
    return {
        path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(bundle.rglob("*"))
        if path.is_file()
    }


def overwrite(path: Path, change: bytes) -> None:
    """Change the first bytes of a file where it is, read-only or not, without changing its size."""
    before = path.read_bytes()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(change)
    assert path.read_bytes() != before
    assert path.stat().st_size == len(before)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
