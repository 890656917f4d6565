"""What a lock may say: it decides which bytes are taken from where, and under which names they are put."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sdbuild.documents import DocumentError, read_json
from sdbuild.paths import RelativePath
from sdbuild.recipe.references import check_hub_id, check_revision

_LONGEST_LOCK = 4_000_000  # bytes; one that pins four repositories has some 10 kB
_LARGEST_FILE = 2**50


class LockMistake(ValueError):  # noqa: N818 (as `Diagnostic`, it says what is wrong with what somebody wrote)
    """What is wrong with a lock."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LockedFileSchema(_Closed):
    """A file's size and hash."""

    size: int = Field(ge=0, le=_LARGEST_FILE)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class LockedRepositorySchema(_Closed):
    """A repository at its commit."""

    version: Annotated[str, AfterValidator(check_hub_id)]
    revision: Annotated[str, AfterValidator(check_revision)] | None
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: dict[RelativePath, LockedFileSchema] = Field(max_length=10_000)
    sources: dict[RelativePath, dict[RelativePath, RelativePath]] = Field(max_length=1_000)

    @model_validator(mode="after")
    def _every_source_is_pinned(self) -> LockedRepositorySchema:
        for source, taken in self.sources.items():
            for name in taken.values():
                if name not in self.files:
                    raise ValueError(f"{source} takes {name}, which has no hash")
        return self


class LockSchema(_Closed):
    """A whole lock."""

    format: Literal[1]
    repositories: list[LockedRepositorySchema] = Field(max_length=100)


def parse_lock(path: Path) -> LockSchema:
    """Read a lock.

    Raises:
        LockMistake: the file cannot be read, or says what no lock may say.
    """
    try:
        return LockSchema.model_validate(read_json(path, _LONGEST_LOCK, unique=True))
    except ValidationError as error:
        raise LockMistake(_first(error)) from error
    except DocumentError as error:
        raise LockMistake(f"cannot be read: {error}") from error
    except OSError as error:
        raise LockMistake(f"cannot be read: {error.strerror}") from error


def _first(error: ValidationError) -> str:
    details: list[Any] = list(error.errors(include_url=False, include_input=False))
    detail = details[0]
    place = ".".join(str(step) for step in detail["loc"] if step != "[key]")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{place[:200] or 'the file'}: {detail['msg'].removeprefix('Value error, ')}{more}"
