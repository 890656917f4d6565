"""A store in a temporary folder, and a folder of files to put in it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sdbuild.store import Store

Filler = Callable[[str, Mapping[str, bytes]], Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def fill(tmp_path: Path) -> Filler:
    def make(name: str, files: Mapping[str, bytes]) -> Path:
        for path, data in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        return tmp_path / name

    return make


@pytest.fixture
def overwrite() -> Callable[[Path, bytes], None]:
    """Write into a file in place, as somebody would who cares little for its mode."""

    def write(path: Path, data: bytes) -> None:
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(data)

    return write
