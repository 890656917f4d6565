"""The generated files are those of this source, and say something about every field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdbuild.recipe.rules.registry import RULES
from sdbuild.recipe.schema import generated_files, recipe_schema, target_schema

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(generated_files()))
def test_generated_files_are_fresh(name: str) -> None:
    fresh = (ROOT / name).read_text(encoding="utf-8") == generated_files()[name]
    assert fresh, f"{name} is old: run `python -m sdbuild.recipe.schema`"


@pytest.mark.parametrize("schema", [recipe_schema(), target_schema()], ids=["recipe", "target"])
def test_every_field_is_described_and_no_other_is_allowed(schema: dict[str, Any]) -> None:
    for part in (schema, *schema["definitions"].values()):
        if "properties" in part:
            assert part["additionalProperties"] is False
            for name, prop in part["properties"].items():
                assert prop.get("description"), name


def test_editors_complete_the_rules() -> None:
    choices = recipe_schema()["properties"]["allow"]["items"]["anyOf"]
    assert [choice["const"] for choice in choices] == list(RULES)


def test_a_recipe_that_extends_another_may_leave_the_rest_out() -> None:
    schema = recipe_schema()
    assert schema["required"] == ["name"]
    assert schema["else"]["required"] == ["model", "components", "latent", "targets"]
    assert set(schema["properties"]["overrides"]["additionalProperties"]["properties"]) >= {"latent", "unet", "allow"}
    assert "name" not in schema["properties"]["overrides"]["additionalProperties"]["properties"]
