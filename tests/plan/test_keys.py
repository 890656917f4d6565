"""The key documents of a recipe, field by field, against a golden file.

A difference here means that every user builds again what the changed stages make: it must be meant.
Write the file anew with SDBUILD_GOLDEN=write.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sdbuild import stages
from sdbuild.plan import action
from sdbuild.plan.action import closure, key_document
from sdbuild.plan.errors import PlanError
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from sdbuild.store import key_of

GOLDEN = Path(__file__).parent / "golden_keys.json"


@pytest.fixture
def fixed_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "installed_version", lambda name: "1.0")
    monkeypatch.setattr(stages, "load_stage", lambda name: stages.Stage(name, 1, ("torch",)))


def documents(**variables: str) -> dict[str, Any]:
    """Task name → key and document, with the digest of each input made from its producer's name.

    Those of checkpoints that predict noise: nothing is made of their prediction, and what is empty is no input.
    """
    found = {}
    for each in make_plan(parse_options(variables)).graph:
        if not each.files:
            inputs = {role: sha256(producer.name.encode()).hexdigest()[:8] for role, producer in each.inputs.items()}
            inputs.pop("prediction", None)
            document = key_document(each, inputs)
            found[each.name] = {"key": key_of(document), "document": document}
    return found


RECIPES: dict[str, dict[str, str]] = {
    "phone": {},
    "controlled": {
        "model": "{version: org/model, revision: " + "a" * 40 + "}",
        "controlnets": "[{version: lllyasviel/control_v11p_sd15_canny, revision: " + "b" * 40 + "}]",
        "quantization": "{controlnet: 8}",
        "precision": "{vae_decoder: float32}",
        "verify": "{unet: {structure_db: 90, signal_db: 47.5}}",
    },
    "xl": {
        "model": "{version: org/xl, revision: " + "c" * 40 + "}",
        "components": "[text_encoder, text_encoder_2, unet, vae_decoder, vae_encoder]",
        "latent": "{height: 96, width: 128}",
        "targets": "[iphone-15-pro, mac-studio-m2-ultra]",
        "overrides": "{mac-studio-m2-ultra: {attention_implementation: ORIGINAL, unet: {chunks: 1}}}",
    },
    "sd3": {
        "model": "{version: org/sd3, revision: " + "d" * 40 + "}",
        "components": "[text_encoder, text_encoder_2, text_encoder_3, transformer, vae_decoder]",
        "unet": "{}",
        "quantization": "{transformer: 8}",
        "targets": "[mac-studio-m2-ultra]",
    },
    "adapted": {
        "model": "{version: org/model, revision: " + "a" * 40 + "}",
        "t2i_adapters": "[{version: TencentARC/t2iadapter_canny_sd14v1, revision: " + "b" * 40 + "}]",
        "quantization": "{t2i_adapter: 8}",
    },
    "inverted": {
        "model": "{version: org/model, revision: " + "a" * 40 + "}",
        "textual_inversions": "[{version: org/toy, revision: " + "b" * 40 + ", file: toy.pt, token: <toy>}]",
    },
    "tiny": {"model": "{version: 'builtin:tiny-sd'}", "minimum_deployment_target": "macOS14"},
}


@pytest.mark.usefixtures("fixed_tools")
def test_key_documents_are_as_they_were(workspace: Any) -> None:
    found = {}
    for name, changes in RECIPES.items():
        workspace.recipe(name=name, **changes)
        found[name] = documents(recipe=name)
    if os.environ.get("SDBUILD_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    expected = json.loads(GOLDEN.read_text())
    for name in RECIPES:
        assert found[name] == expected[name]


@pytest.mark.usefixtures("fixed_tools")
def test_the_recipes_name_is_in_the_bundles_key_alone(workspace: Any) -> None:
    workspace.recipe(name="other")
    first, second = documents(recipe="phone"), documents(recipe="other")
    assert [name for name in first if first[name] != second[name]] == ["bundle:iphone-15-pro"]


@pytest.mark.usefixtures("fixed_tools")
def test_a_phone_and_a_mac_share_deployment_targets(workspace: Any) -> None:
    workspace.recipe(name="mac", minimum_deployment_target="macOS14")
    workspace.recipe(name="ios", minimum_deployment_target="iOS17")
    assert documents(recipe="mac")["convert:unet"] == documents(recipe="ios")["convert:unet"]


def test_sources_come_first_among_what_a_bundle_needs(workspace: Any) -> None:
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    names = [each.stage.name for each in closure(graph.products()[0])]
    last_source = max(index for index, name in enumerate(names) if name == "source")
    assert set(names[: last_source + 1]) == {"source"}


def test_two_t2i_adapters_cannot_have_one_name(workspace: Any) -> None:
    workspace.recipe(t2i_adapters="[{version: org/canny-sd}, {version: org/canny_sd}]")
    with pytest.raises(PlanError, match="t2i_adapters: two would be called OrgCannySd in the bundle"):
        make_plan(parse_options({"recipe": "phone"}))


def test_the_local_part_of_a_version_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdbuild.plan import tools

    tools.installed_version.cache_clear()
    monkeypatch.setattr(tools, "version", lambda name: "2.13.0+cpu")
    assert tools.installed_version("torch") == "2.13.0"
    tools.installed_version.cache_clear()


def test_a_mac_compiles_and_elsewhere_bundles_hold_packages(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdbuild.plan import planner

    graph = make_plan(parse_options({"recipe": "phone"})).graph
    assert not any(each.stage.name == "compile" for each in graph)
    assert graph["bundle:iphone-15-pro"].parameters["compiled"] is False
    monkeypatch.setattr(planner, "core_ml_compiler", lambda: "3500.32.1")
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    compiled = graph["compile:unet"]
    assert compiled.parameters == {"platform": "ios"}
    assert compiled.tools == {"coremlcompiler": "3500.32.1"}
    assert compiled.inputs["package"].name == "chunk:unet"
    assert graph["bundle:iphone-15-pro"].inputs["unet"] is compiled
    assert graph["bundle:iphone-15-pro"].parameters["compiled"] is True
