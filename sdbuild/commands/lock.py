"""`lock`: ask the Hub once what a recipe's repositories are, and pin that."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sdbuild.checkpoints.files import CheckpointFilesError, select_files, select_single_file
from sdbuild.console.command import VariableCommand
from sdbuild.console.tables import shown_bytes, write_table
from sdbuild.console.variables import RECIPE, Variable
from sdbuild.errors import SdbuildError
from sdbuild.plan.errors import PlanError
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import load, make_graph
from sdbuild.recipe.load import LoadedRecipe
from sdbuild.recipe.lock import Lock, LockedFile, LockedRepository, lock_path, source_name, write_lock
from sdbuild.recipe.references import ModelKind, Reference

if TYPE_CHECKING:
    from sdbuild.checkpoints.hub import Hub, Repository

Parameters = Mapping[str, Any]

_UPGRADE = Variable("upgrade", "true", "take what the repositories' revisions mean now", "`false`")


class Command(VariableCommand):
    """Pin a recipe's repositories."""

    name = "lock"
    doc_purpose = "pin the commits and the hashes of what a recipe takes from the Hub, in NAME.lock beside it"
    guide = "lock"
    variables = (RECIPE, _UPGRADE)

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the lock and a table of what it pins."""
        from sdbuild.checkpoints.hub import Hub

        upgrade = variables.get("upgrade", "false")
        if upgrade not in ("true", "false"):
            raise PlanError(f"upgrade={upgrade}: write upgrade=true, or leave it out")
        options = parse_options({key: value for key, value in variables.items() if key != _UPGRADE.name})
        loaded, targets = load(options)
        requests = _requests(replace(loaded, lock=None), make_graph(replace(loaded, lock=None), targets, options))
        if not requests:
            print(f"{loaded.recipe.name}: takes nothing from the Hub; there is nothing to lock")
            return 0
        pinned = [_pin(Hub(), each, loaded.lock, upgrade == "true") for each in requests]
        path = lock_path(loaded.path)
        write_lock(path, [pin.repository for pin in pinned])
        write_table(("repository", "revision", "commit", "files", "size", "what"), [pin.row() for pin in pinned])
        print(f"lock: {path}")
        return 0


@dataclass(frozen=True)
class _PinRequest:
    """A repository as the recipe names it, and the `source` actions that take files of it."""

    version: str
    revision: str | None
    actions: tuple[Parameters, ...]

    @property
    def label(self) -> str:
        return f"{self.version}@{self.revision}" if self.revision else self.version


@dataclass(frozen=True)
class _Pinned:
    """A locked repository, and how it came to be."""

    repository: LockedRepository
    what: str

    def row(self) -> tuple[str, ...]:
        """Its line in the table."""
        locked = self.repository
        size = shown_bytes(sum(file.size for file in locked.files.values()))
        return locked.version, locked.revision or "", locked.commit[:12], str(len(locked.files)), size, self.what


def _requests(loaded: LoadedRecipe, graph: Any) -> list[_PinRequest]:
    named: dict[tuple[str, str | None], Reference] = {
        (reference.version, reference.revision): reference
        for _, reference in loaded.recipe.references()
        if reference.kind is ModelKind.HUB
    }
    actions = [
        action.parameters for action in graph if action.stage.name == "source" and "revision" in action.parameters
    ]
    found = []
    for version, revision in named:
        taken = tuple(each for each in actions if (each["version"], each["revision"]) == (version, revision))
        if taken:
            found.append(_PinRequest(version, revision, taken))
    return found


def _pin(hub: "Hub", request: _PinRequest, lock: Lock | None, upgrade: bool) -> _Pinned:
    """Pin one repository: where the lock has it already, at the same commit, unless it is to be upgraded."""
    old = lock.find(request.version, request.revision) if lock is not None else None
    now = _ask(hub, request.version, request.revision)
    if old is None or upgrade:
        repository = now
        what = "new" if old is None else "as it was" if old.commit == now.commit else f"upgraded from {old.commit[:12]}"
    else:
        repository = now if now.commit == old.commit else _ask(hub, request.version, old.commit)
        what = "as it was" if now.commit == old.commit else f"kept; now at {now.commit[:12]}, see upgrade=true"
    sources = {_key(each): _select(each, repository) for each in request.actions}
    files = dict(_hashes(hub, repository, sorted({name for taken in sources.values() for name in taken.values()})))
    if old is not None and not upgrade:
        changed = [name for name, file in files.items() if old.files.get(name, file) != file]
        if changed:
            raise SdbuildError(
                f"{request.label}: at the locked commit the Hub has other bytes than the lock says: "
                f"{', '.join(changed)}. Nothing was written; `upgrade=true` accepts what the Hub has."
            )
    return _Pinned(LockedRepository(request.version, request.revision, repository.commit, files, sources), what)


def _ask(hub: "Hub", version: str, revision: str | None) -> "Repository":
    from sdbuild.checkpoints.hub_errors import HubError

    repository = hub.repository(version, revision)
    if repository.offline:
        raise HubError(f"{version}: the Hub cannot be reached, and only the Hub knows what to lock.", offline=True)
    return repository


def _key(parameters: Parameters) -> str:
    return source_name(parameters["component"], parameters.get("precision"), parameters.get("file"))


def _select(parameters: Parameters, repository: "Repository") -> dict[str, str]:
    names = [file.name for file in repository.files]
    try:
        if "file" in parameters:
            return select_single_file(parameters["file"], names, parameters.get("beside"))
        return select_files(parameters["component"], names, precision=parameters.get("precision", "float32"))
    except CheckpointFilesError as error:
        raise CheckpointFilesError(f"{repository.name}@{repository.commit[:12]}: {error}") from error


def _hashes(hub: "Hub", repository: "Repository", names: list[str]) -> Iterator[tuple[str, LockedFile]]:
    """Each file's size and sha256; the Hub tells them of large files, small ones are fetched to know them."""
    listed = {file.name: file for file in repository.files}
    small = [name for name in names if listed[name].sha256 is None]
    paths = hub.download(repository, small, lambda _, __: None)
    for name in names:
        sha256, size = listed[name].sha256, listed[name].size
        if sha256 is None or size is None:
            content = paths[name].read_bytes()
            sha256, size = hashlib.sha256(content).hexdigest(), len(content)
        yield name, LockedFile(size, sha256)
