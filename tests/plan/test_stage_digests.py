"""No change of a stage's source goes by without a decision on its version."""

import json
from pathlib import Path

import pytest

import sdbuild
from sdbuild.plan import stage_digests
from sdbuild.plan.import_closure import ImportClosure


def test_every_stages_source_is_as_it_was_when_its_version_was_decided() -> None:
    found = list(stage_digests.changed(json.loads(stage_digests.RECORD.read_text())))
    assert not found, (
        f"{'; '.join(found)}. If the result is another, run: python -m sdbuild.plan.stage_digests --raise STAGE; "
        "if it is the same: python -m sdbuild.plan.stage_digests --accept"
    )


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("bundle", "sdbuild.coreml.footprint"),
        ("compile", "sdbuild.coreml.order"),  # by way of the footprints of what was compiled
        ("convert", "sdbuild.coreml.proto"),
        ("verify", "sdbuild.coreml.runtime.kernels.convolution"),
    ],
)
def test_a_stages_source_is_whatever_it_leads_to(stage: str, module: str) -> None:
    closure = ImportClosure(Path(sdbuild.__file__).parent)
    assert module in closure.modules(f"sdbuild.stages.{stage}")


def test_comments_layout_and_docstrings_do_not_count_and_code_does() -> None:
    source = 'def f(x):\n    """What f is."""\n    return f"{x!r:>{3}}" + "a"\n'
    rewritten = 'def f(\n    x\n):  # a comment\n    """Another text."""\n\n    return f"{x!r:>{3}}"  +  "a"\n'
    assert stage_digests.normalised(source) == stage_digests.normalised(rewritten)
    assert stage_digests.normalised(source) != stage_digests.normalised(source.replace("3", "4"))


def test_a_changed_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {name: vars(source) for name, source in stage_digests.stage_sources().items()}
    assert list(stage_digests.changed(record)) == []
    record["chunk"] = {**record["chunk"], "digest": "another"}
    assert list(stage_digests.changed(record)) == [
        f"chunk: its source has changed, its version {record['chunk']['version']} has not"
    ]
