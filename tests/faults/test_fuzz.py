"""A sample of broken files of every kind: read, or refused in words, soon and in little memory."""

from pathlib import Path

import pytest

from tests.faults import fuzz

CASES = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def kinds(folder: Path) -> dict[str, fuzz.Target]:
    return fuzz.targets(folder)


KINDS = 18


@pytest.mark.parametrize("index", range(KINDS))
def test_broken_files_are_read_or_refused_in_words(index: int, kinds: dict[str, fuzz.Target], folder: Path) -> None:
    assert len(kinds) == KINDS
    name = list(kinds)[index]
    done, wrong = fuzz.run(CASES, index, folder, {name: kinds[name]})
    assert done[name] == CASES
    assert not wrong, "\n\n".join(wrong)


def test_what_is_right_is_read(kinds: dict[str, fuzz.Target], folder: Path) -> None:
    refused = {name: fuzz.try_one(target, target.seed, folder) for name, target in kinds.items()}
    assert not any(refused.values()), refused


def test_a_mistake_of_ours_would_be_told(kinds: dict[str, fuzz.Target], folder: Path) -> None:
    broken = fuzz.Target(b"x", lambda path: [][1], "x")
    assert "IndexError" in fuzz.try_one(broken, b"x", folder)
