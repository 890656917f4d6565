"""A compression is one declaration and one function; what is missing or said twice is an error that says where."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdbuild import compression
from sdbuild.compression import CHOICES, METHODS, compression_of
from sdbuild.compression.linear_integers import LinearIntegers
from sdbuild.compression.look_up_tables import LookUpTables, widths

TRIAL = """
from dataclasses import dataclass
from typing import ClassVar
from sdbuild.compression.method import Compression

@dataclass(frozen=True)
class Trial(Compression):
    method: ClassVar[str] = "trial"
    documentation: ClassVar[str] = "`trial5` for a trial"

    @classmethod
    def choices(cls):
        return {"trial5": cls(5)}

    @property
    def oldest_generation(self):
        return 17

    @property
    def least_signal(self):
        return 12.0
"""


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    monkeypatch.setattr(compression, "__path__", [*compression.__path__, str(tmp_path)])
    yield lambda source: (tmp_path / "trial.py").write_text(source) and None
    sys.modules.pop("sdbuild.compression.trial", None)


def test_a_declaration_is_found(add: Callable[[str], None]) -> None:
    add(TRIAL)
    methods = compression._methods()
    assert set(methods) == {*METHODS, "trial"}
    chosen = compression._choices(methods)["trial5"]
    assert chosen.stored_bytes(16) == 10
    assert chosen.in_groups(8) is None


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"trial"', '"palette"', "another compression is called 'palette'"),
        ('"trial5": cls', '"linear8": cls', "'linear8' means LinearIntegers(bits=8) already"),
        ('"trial5": cls', '"none": cls', "'none' means no compression already"),
        ("    documentation:", "    text:", "declares no Compression with a method and its documentation"),
        ("(Compression)", "", "declares no Compression with a method and its documentation"),
        ("    def oldest_generation", "    def oldest", "abstract method"),
    ],
)
def test_a_declaration_that_lacks_something_says_what(
    add: Callable[[str], None], before: str, after: str, message: str
) -> None:
    add(TRIAL.replace(before, after))
    with pytest.raises(TypeError, match=re.escape(message)):
        compression._choices(compression._methods())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_function(method: str) -> None:
    assert callable(importlib.import_module(f"sdbuild.coreml.compressors.{method}").compress)


def test_every_choice_comes_back_from_what_key_documents_say() -> None:
    for chosen in (*CHOICES.values(), LookUpTables(4, 32)):
        assert compression_of(chosen.method, chosen.bits, chosen.group_size) == chosen


@pytest.mark.parametrize(
    ("method", "bits", "group_size"), [("other", 8, None), ("palette", 5, None), ("linear", 8, 16)]
)
def test_what_no_method_offers_is_an_error(method: str, bits: int, group_size: int | None) -> None:
    with pytest.raises(ValueError, match=f"no compression '{method}' with {bits} bits"):
        compression_of(method, bits, group_size)


def test_systems_hold_what_coremltools_documents() -> None:
    assert widths("iOS16") == widths("iOS17") == (1, 2, 4, 6, 8)
    assert widths("iOS18") == (1, 2, 3, 4, 6, 8)
    assert LookUpTables(4, 16).oldest_generation == 18
    assert LinearIntegers(8).oldest_generation == 16
