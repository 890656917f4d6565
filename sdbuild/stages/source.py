"""The source stage: one component's files of a checkpoint, from the Hub, from a directory or generated.

Parameters: ``version`` (``owner/name``, a path, or ``builtin:NAME``), ``revision`` (of a Hub repository, or null) and
``component``, a key of `sdbuild.stages.checkpoint_files.COMPONENT_FOLDERS`; optionally ``precision``: with `float16`,
half-precision weights are taken where there are any. The result is rooted at the component's folder.

A single-file checkpoint goes through the stage twice: first its file, named by ``file``, with the component
`SINGLE_FILE`; then, with that artifact as the input ``checkpoint``, each component taken out of it. Parameters of that
are ``component`` and ``prediction_type`` (what the recipe says of it, or null).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.errors import SdbuildError
from sdbuild.hub import Hub
from sdbuild.stages import Stage
from sdbuild.stages.checkpoint_files import COMPONENT_FOLDERS, CheckpointFilesError, select_files, select_single_file
from sdbuild.stages.files import place
from sdbuild.stages.single_file import extract

STAGE = Stage(
    name="source",
    version=1,
    modules=(
        "sdbuild.hub",
        "sdbuild.hub_errors",
        "sdbuild.models.checkpoint",
        "sdbuild.models.errors",
        "sdbuild.models.single_file",
        "sdbuild.models.tiny",
        "sdbuild.models.write",
        "sdbuild.recipe.single_file",
        "sdbuild.stages.checkpoint_files",
        "sdbuild.stages.files",
        "sdbuild.stages.single_file",
    ),
)

Progress = Callable[[float, str], None]

BUILTIN = "builtin:"


class SourceError(SdbuildError):
    """A checkpoint's files could not be brought together."""


def run(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Fill `out` with the files of one component.

    Raises:
        SourceError: there is no such directory, or a component's files are missing.
        ExtractError: a single-file checkpoint does not hold the component.
        HubError: the Hub did not give what was asked for.
    """
    if "checkpoint" in inputs:
        extract(inputs["checkpoint"], params["component"], params["prediction_type"], out, progress)
        progress(1.0, f"{params['component']} of a single file")
        return
    version = params["version"]
    wanted = _Wanted(params["component"], params.get("precision", "float32"), params.get("file"))
    if version.startswith(BUILTIN):
        _generate(version.removeprefix(BUILTIN), wanted, out)
    elif version.startswith((".", "/", "~")):
        _take(Path(version).expanduser(), wanted, out)
    else:
        _download(version, params.get("revision"), wanted, out, progress)
    progress(1.0, f"{wanted.component} of {version}")


@dataclass(frozen=True)
class _Wanted:
    """Which files of a checkpoint to take."""

    component: str
    precision: str
    file: str | None = None

    def select(self, where: str, names: list[str]) -> dict[str, str]:
        try:
            if self.file is not None:
                return select_single_file(self.file, names)
            return select_files(self.component, names, precision=self.precision)
        except CheckpointFilesError as error:
            raise SourceError(f"{where}: {error}") from error


def _generate(name: str, wanted: _Wanted, out: Path) -> None:
    from sdbuild.models import tiny

    folders = None if wanted.component == "index" else ["", COMPONENT_FOLDERS[wanted.component]]
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        checkpoint = Path(temporary)
        tiny.generate(name, checkpoint, folders)
        for target, source in wanted.select(f"{BUILTIN}{name}", _listing(checkpoint)).items():
            place(checkpoint / source, out / target)


def _take(checkpoint: Path, wanted: _Wanted, out: Path) -> None:
    if not checkpoint.is_dir():
        raise SourceError(f"{checkpoint}: no such directory; model.version must be a checkpoint in diffusers layout.")
    for target, source in wanted.select(str(checkpoint), _listing(checkpoint)).items():
        place(checkpoint / source, out / target)


def _download(version: str, revision: str | None, wanted: _Wanted, out: Path, progress: Progress) -> None:
    hub = Hub()
    repository = hub.repository(version, revision)
    where = f"{version}@{repository.commit[:12]}"
    if repository.offline:
        where += " (the part of it in the Hub cache; the Hub cannot be reached)"
        progress(0.0, f"the Hub cannot be reached: using its cache for {version}")
    files = wanted.select(where, [file.name for file in repository.files])
    paths = hub.download(repository, files.values(), progress)
    for target, source in files.items():
        place(paths[source], out / target)


def _listing(checkpoint: Path) -> list[str]:
    return sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
