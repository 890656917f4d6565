"""No change of a stage's source goes by without a decision on its version."""

import json

import pytest

from sdbuild import stages
from sdbuild.plan import stage_digests


def test_every_stages_source_is_as_it_was_when_its_version_was_decided() -> None:
    found = list(stage_digests.changed(json.loads(stage_digests.RECORD.read_text())))
    assert not found, (
        f"{'; '.join(found)}. If the result is another, run: python -m sdbuild.plan.stage_digests --raise STAGE; "
        "if it is the same: python -m sdbuild.plan.stage_digests --accept"
    )


@pytest.mark.parametrize("name", stages.STAGE_NAMES)
def test_a_stage_declares_the_modules_that_it_imports(name: str) -> None:
    assert stage_digests.undeclared(name) == []


def test_comments_layout_and_docstrings_do_not_count_and_code_does() -> None:
    source = 'def f(x):\n    """What f is."""\n    return f"{x!r:>{3}}" + "a"\n'
    rewritten = 'def f(\n    x\n):  # a comment\n    """Another text."""\n\n    return f"{x!r:>{3}}"  +  "a"\n'
    assert stage_digests.normalised(source) == stage_digests.normalised(rewritten)
    assert stage_digests.normalised(source) != stage_digests.normalised(source.replace("3", "4"))


def test_a_changed_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {name: vars(stage_digests.stage_source(name)) for name in stages.STAGE_NAMES}
    assert list(stage_digests.changed(record)) == []
    record["chunk"] = {**record["chunk"], "digest": "another"}
    assert list(stage_digests.changed(record)) == [
        f"chunk: its source has changed, its version {record['chunk']['version']} has not"
    ]
