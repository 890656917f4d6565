"""`NAME.lock` beside a recipe: for each Hub repository that it names the commit, and each needed file's size and hash.

The file is JSON, written by `doit lock` and meant to be committed: with it, a branch or a tag in the recipe means the
same files for everybody, until somebody locks anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.recipe.diagnostics import Diagnostic, RecipeError

if TYPE_CHECKING:
    from sdbuild.recipe.lock_schema import LockedRepositorySchema

FORMAT = 1
_SUFFIX = ".lock"


@dataclass(frozen=True)
class LockedFile:
    """A file's size in bytes and the hash of its content."""

    size: int
    sha256: str


@dataclass(frozen=True)
class LockedRepository:
    """A repository at the commit that its revision meant when it was locked.

    Attributes:
        version: `organisation/name`.
        revision: what the recipe said: a branch, a tag, a commit, or nothing.
        commit: the commit.
        files: path in the repository → size and hash, for every file that the recipe needs.
        sources: what is taken (`unet/float16`, `tokenizer`, …) → path in the artifact → path in the repository.
    """

    version: str
    revision: str | None
    commit: str
    files: Mapping[str, LockedFile]
    sources: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Lock:
    """What a recipe's lock pins.

    Attributes:
        path: the lock's file.
        repositories: in the file's order.
    """

    path: Path
    repositories: tuple[LockedRepository, ...]

    def find(self, version: str, revision: str | None) -> LockedRepository | None:
        """The pin of a repository, if it was locked at the revision that is asked for now."""
        for repository in self.repositories:
            if (repository.version, repository.revision) == (version, revision):
                return repository
        return None


def source_name(component: str, precision: str | None, file: str | None = None) -> str:
    """The key under which a lock says which files a `source` action takes."""
    return "/".join(word for word in (component, precision, file) if word is not None)


def lock_path(recipe: Path) -> Path:
    """Where a recipe's lock is: beside its file; for a recipe that came with an installed sdbuild, in `./recipes`."""
    beside = recipe.with_suffix(_SUFFIX)
    return beside if "_catalogue" not in beside.parts else Path.cwd() / "recipes" / beside.name


def read_lock(recipe: Path) -> Lock | None:
    """A recipe's lock; None where it has none.

    A lock decides where bytes from the Hub are written: nothing of it is used before all of it is valid.

    Raises:
        RecipeError: the file is damaged, of a later format, or says something that no lock may say.
    """
    path = lock_path(recipe)
    if not path.exists() and not path.is_symlink():
        return None
    from sdbuild.recipe.lock_schema import LockMistake, parse_lock  # here: most recipes have no lock

    try:
        document = parse_lock(path)
    except LockMistake as mistake:
        help_ = f"remove it and run `doit lock recipe={recipe.stem}`"
        raise RecipeError([Diagnostic("lock", f"{path}: {mistake}", None, help_)]) from mistake
    return Lock(path, tuple(map(_repository, document.repositories)))


def write_lock(path: Path, repositories: Iterable[LockedRepository]) -> None:
    """Write a lock; the same bytes for the same pins."""
    found = sorted(repositories, key=lambda repository: (repository.version, repository.revision or ""))
    document = {"format": FORMAT, "repositories": [_plain(repository) for repository in found]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".lock.new")
    temporary.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    temporary.replace(path)


def _plain(repository: LockedRepository) -> dict[str, Any]:
    return {
        "version": repository.version,
        "revision": repository.revision,
        "commit": repository.commit,
        "files": {name: vars(file) for name, file in repository.files.items()},
        "sources": {name: dict(files) for name, files in repository.sources.items()},
    }


def _repository(document: LockedRepositorySchema) -> LockedRepository:
    return LockedRepository(
        document.version,
        document.revision,
        document.commit,
        {name: LockedFile(file.size, file.sha256) for name, file in document.files.items()},
        {name: dict(files) for name, files in document.sources.items()},
    )
