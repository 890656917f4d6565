"""The source stage: one component's files of a checkpoint, from the Hub, from a directory or generated.

Parameters: ``version`` (``owner/name``, a path, or ``builtin:NAME``), ``revision`` (of a Hub repository, or null) and
``component``, a key of `sdbuild.checkpoints.files.COMPONENT_FOLDERS`; optionally ``precision``: with `float16`,
half-precision weights are taken where there are any. With ``files`` (path in the result → name, size and sha256), a
lock has chosen: exactly those are fetched. The result is rooted at the component's folder.

A single-file checkpoint goes through the stage twice: first its file, named by ``file``, with the component
`SINGLE_FILE`, and with ``beside``, the name of a file that is taken along where it is there; then, with that artifact
as the input ``checkpoint``, each component taken out of it. Parameters of that are ``component`` and
``prediction_type`` (what the recipe says of it, or null). A file of one network has no configuration: its second way
has as a further input ``base`` the JSON files of the pipeline that it is for, and ``component`` alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sdbuild.checkpoints.extraction import extract, extract_part
from sdbuild.checkpoints.files import COMPONENT_FOLDERS, CheckpointFilesError, select_files, select_single_file
from sdbuild.checkpoints.hub import Hub, RemoteFile
from sdbuild.checkpoints.hub_errors import HubError
from sdbuild.errors import SdbuildError
from sdbuild.paths import inside, user_path
from sdbuild.stages import Stage
from sdbuild.stages.files import place
from sdbuild.stages.interface import UNSTATED
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """Which files of which checkpoint.

    Attributes:
        component: a key of `sdbuild.checkpoints.files.COMPONENT_FOLDERS`, or `SINGLE_FILE`.
        version: `owner/name`, a path, or `builtin:NAME`; none where a single file is an input.
        revision: of a Hub repository; None for its main branch.
        precision: with `float16`, half-precision weights are taken where there are any.
        file: the single file of a Hub repository.
        beside: a file that is taken along where it is there.
        files: exactly the files to fetch: path in the result → name, size and sha256.
        generator: the version of what makes a built-in checkpoint.
        prediction_type: for a component of a single file, what the recipe says of it.
        markers: for a component of a single file, that what the file says of itself is read; it always is.
    """

    component: str
    version: str = ""
    revision: str | None = UNSTATED
    precision: Literal["float16", "float32"] | None = None
    file: str | None = UNSTATED
    beside: str | None = None
    files: Mapping[str, Mapping[str, Any]] | None = None
    generator: int = 0
    prediction_type: Literal["epsilon", "v_prediction", ""] | None = UNSTATED
    markers: bool = False


STAGE = Stage(
    name="source",
    version=1,
    parameters=Parameters,
    title="the checkpoint's files of {}",
    group="fetch or read the files of each component",
    reads="a Hub repository, a local directory, or a generator",
    result="the files of one component",
)

Progress = Callable[[float, str], None]

BUILTIN = "builtin:"


class SourceError(SdbuildError):
    """A checkpoint's files could not be brought together."""


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Progress) -> None:
    """Fill `out` with the files of one component.

    Raises:
        SourceError: there is no such directory, or a component's files are missing.
        ExtractError: a single-file checkpoint does not hold the component.
        HubError: the Hub did not give what was asked for.
    """
    if "base" in inputs:
        extract_part(inputs["checkpoint"], params.component, inputs["base"], out, progress)
        progress(1.0, f"{params.component} of a file of its own")
        return
    if "checkpoint" in inputs:
        extract(inputs["checkpoint"], params.component, params.prediction_type or None, out, progress)
        progress(1.0, f"{params.component} of a single file")
        return
    version = params.version
    selection = _Selection(
        params.component,
        params.precision or "float32",
        params.file or None,
        params.beside,
        params.files,
    )
    if version.startswith(BUILTIN):
        _generate(version.removeprefix(BUILTIN), selection, out)
    elif version.startswith((".", "/", "~")):
        _take(user_path(version), selection, out)
    else:
        _download(version, params.revision or None, selection, out, progress)
    progress(1.0, f"{selection.component} of {version}")


@dataclass(frozen=True)
class _Selection:
    """Which files of a checkpoint to take."""

    component: str
    precision: str
    file: str | None = UNSTATED
    beside: str | None = None
    locked: Mapping[str, Any] | None = None

    def select(self, where: str, names: list[str]) -> dict[str, str]:
        try:
            if self.file is not None:
                return select_single_file(self.file, names, self.beside)
            return select_files(self.component, names, precision=self.precision)
        except CheckpointFilesError as error:
            raise SourceError(f"{where}: {error}") from error


def _generate(name: str, selection: _Selection, out: Path) -> None:
    from sdbuild.builtin import tiny

    folders = None if selection.component == "index" else ["", COMPONENT_FOLDERS[selection.component]]
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        checkpoint = Path(temporary)
        tiny.generate(name, checkpoint, folders)
        for target, source in selection.select(f"{BUILTIN}{name}", _listing(checkpoint)).items():
            (out / target).parent.mkdir(parents=True, exist_ok=True)
            (checkpoint / source).rename(out / target)


def _take(checkpoint: Path, selection: _Selection, out: Path) -> None:
    if not checkpoint.is_dir():
        raise SourceError(f"{checkpoint}: no such directory; model.version must be a checkpoint in diffusers layout.")
    for target, source in selection.select(str(checkpoint), _listing(checkpoint)).items():
        place(checkpoint / source, out / target)


def _download(version: str, revision: str | None, selection: _Selection, out: Path, progress: Progress) -> None:
    hub = Hub(say=lambda message: progress(0.0, message))
    if selection.locked is not None:
        _download_locked(hub, version, str(revision), selection.locked, out, progress)
        return
    repository = hub.repository(version, revision)
    where = f"{version}@{repository.commit[:12]}"
    if repository.offline:
        where += " (the part of it in the Hub cache; the Hub cannot be reached)"
    files = selection.select(where, [file.name for file in repository.files])
    if repository.offline:
        raise HubError(
            f"{where}: the cache may hold fewer files than the Hub does, so that another choice might be made with it. "
            "Connect to the network, lock the recipe (`doit lock`), or set HF_HUB_OFFLINE=1: then what the cache holds "
            "is built, under a key of its own.",
            offline=True,
        )
    paths = hub.download(repository, files.values(), progress)
    for target, source in files.items():
        place(paths[source], inside(out, target))


def _download_locked(
    hub: Hub, version: str, commit: str, locked: Mapping[str, Any], out: Path, progress: Progress
) -> None:
    """Fetch exactly the files that a lock names, and say where the Hub has others."""
    pinned = {file["name"]: RemoteFile(file["name"], file["size"], file["sha256"]) for file in locked.values()}
    repository = hub.repository(version, commit)
    there = {file.name: file for file in repository.files}
    drifted = [drift for file in pinned.values() if (drift := _drift(file, there.get(file.name)))]
    if drifted and not repository.offline:
        raise SourceError(
            f"{version}@{commit[:12]}: the Hub does not have what the recipe's lock says:\n  "
            + "\n  ".join(drifted)
            + "\nNothing was taken. To accept what the Hub has now: `doit lock recipe=NAME upgrade=true`."
        )
    paths = hub.download(replace(repository, files=tuple(pinned.values())), pinned, progress)
    for target, file in locked.items():
        place(paths[file["name"]], inside(out, target))


def _drift(pinned: RemoteFile, found: RemoteFile | None) -> str | None:
    """How the Hub's file differs from the pinned one, by what the Hub declares of it."""
    if found is None:
        return f"{pinned.name}: is not there any more"
    if found.size is not None and found.size != pinned.size:
        return f"{pinned.name}: {found.size} bytes, {pinned.size} by the lock"
    if found.sha256 is not None and found.sha256 != pinned.sha256:
        return f"{pinned.name}: sha256 {found.sha256[:16]}…, {str(pinned.sha256)[:16]}… by the lock"
    return None


def _listing(checkpoint: Path) -> list[str]:
    return sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
