"""A stage is one file: what it leaves out, and parameters that do not fit, are errors that say where."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdbuild import stages
from sdbuild.stages import load_stage, stage_names
from sdbuild.stages.parameters import ParameterError, from_document, parameters, to_document

TRIAL = """
from sdbuild.stages import Stage
from sdbuild.stages.parameters import parameters, reads

@parameters
class Parameters:
    '''What the trial reads.'''

    count: int
    label: str = ""

STAGE = Stage(
    name="trial",
    version=1,
    parameters=Parameters,
    title="{} tried",
    group="try each component",
    reads="a package",
    result="a file",
    follows=("convert",),
)

@reads(Parameters)
def run(inputs, params, out, progress):
    (out / "trial").write_text(params.label * params.count)
"""


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path)])
    stage_names.cache_clear()
    yield lambda source: (tmp_path / "trial.py").write_text(source) and None
    sys.modules.pop("sdbuild.stages.trial", None)
    stage_names.cache_clear()


def test_a_file_is_enough_for_a_stage(add: Callable[[str], None], tmp_path: Path) -> None:
    from sdbuild.console.tasks import groups

    add(TRIAL)
    names = stage_names()
    assert names.index("convert") < names.index("trial")
    assert groups()["trial"] == "try each component"
    stage: Any = sys.modules["sdbuild.stages.trial"]
    stage.run({}, {"count": 2, "label": "x"}, tmp_path, lambda fraction, message: None)
    assert (tmp_path / "trial").read_text() == "xx"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('name="trial"', 'name="other"', "must be a Stage named 'trial'"),
        ('title="{} tried"', 'title=""', "has no title: say in a few words what one action makes"),
        ('group="try each component"', 'group=""', "has no group"),
        ('result="a file"', 'result=""', "has no result"),
        ("parameters=Parameters", "parameters=dict", "must be a class under sdbuild.stages.parameters"),
        ('follows=("convert",)', 'follows=("convret",)', "names convret, which is no stage"),
        ('follows=("convert",)', 'follows=("trial",)', "follow each other in a circle: trial"),
    ],
)
def test_a_stage_that_lacks_something_says_what(
    add: Callable[[str], None], before: str, after: str, message: str
) -> None:
    add(TRIAL.replace(before, after))
    with pytest.raises(TypeError, match=re.escape(message)):
        stage_names()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "count: Field required"),
        ({"count": "2"}, "count: Input should be a valid integer"),
        ({"count": 2, "lable": "x"}, "lable: Unexpected keyword argument"),
    ],
)
def test_parameters_are_checked_before_a_stage_starts(
    add: Callable[[str], None], tmp_path: Path, document: dict[str, Any], message: str
) -> None:
    add(TRIAL)
    load_stage("trial")
    stage: Any = sys.modules["sdbuild.stages.trial"]
    with pytest.raises(ParameterError, match=re.escape(f"sdbuild.stages.trial.Parameters: {message}")):
        stage.run({}, document, tmp_path, lambda fraction, message: None)
    assert not (tmp_path / "trial").exists()


@parameters
class Inner:
    height: int


@parameters
class Outer:
    inner: Inner
    names: tuple[str, ...]
    nothing: int | None
    added_later: int | None = None


def test_documents_hold_what_is_required_and_what_is_not_the_default() -> None:
    plain = Outer(Inner(64), ("a", "b"), None)
    assert to_document(plain) == {"inner": {"height": 64}, "names": ["a", "b"], "nothing": None}
    more = Outer(Inner(64), (), 1, 2)
    for value in (plain, more):
        assert from_document(Outer, to_document(value)) == value


def test_every_stage_is_whole_and_in_an_order_in_which_artifacts_go() -> None:
    names = stage_names()
    for name in names:
        assert all(names.index(before) < names.index(name) for before in load_stage(name).follows)
    assert names[0] == "source"
