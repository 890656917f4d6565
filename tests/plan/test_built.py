"""What a command that draws finds built: the best bundle there is, and never a worse one in its place."""

import json
from typing import Any

import pytest

from sdbuild.console import built
from sdbuild.console.built import BuildRequest
from sdbuild.plan.errors import PlanError


def request(**variables: str) -> BuildRequest:
    return BuildRequest.from_variables({"recipe": "phone"} | variables, "generate")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was asked to be built, in place of building it."""
    asked: list[tuple[str, ...]] = []

    def build(request: BuildRequest, *tasks: str) -> None:
        asked.append((request.variables.get("verify", ""), *tasks))

    monkeypatch.setattr(built, "_build", build)
    return asked


def test_a_verified_bundle_serves_where_none_was_asked_for(workspace: Any, builds: list[tuple[str, ...]]) -> None:
    assert workspace("recipe=phone").status == 0
    place = built.bundle(request(verify="off"))
    assert place == workspace.root / "build/phone/iphone-15-pro"
    assert builds == []


def test_an_unverified_bundle_serves_where_nothing_was_said(workspace: Any, builds: list[tuple[str, ...]]) -> None:
    assert workspace("recipe=phone", "verify=off").status == 0
    built.bundle(request())
    assert builds == []
    built.bundle(request(verify="on"))
    assert builds == [("on", "bundle:iphone-15-pro")]


def test_a_verified_bundle_is_not_replaced_by_an_unverified_one(
    workspace: Any, builds: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert workspace("recipe=phone").status == 0
    document = workspace.root / "build/phone/iphone-15-pro/bundle.json"
    document.chmod(0o644)
    document.write_text(json.dumps({"verification": {"unet": {}}}))
    workspace.recipe(quantization="{unet: 4}")
    with pytest.raises(PlanError, match=r"is a verified bundle, and out of date.*out=FOLDER"):
        built.bundle(request(verify="off"))
    assert builds == []
    built.bundle(request())
    assert builds == [("", "bundle:iphone-15-pro")]
    assert "is out of date, and built again" in capsys.readouterr().err
    document.write_text(json.dumps({"verification": "not verified"}))
    built.bundle(request(verify="off"))
    assert builds[1:] == [("off", "bundle:iphone-15-pro")]
