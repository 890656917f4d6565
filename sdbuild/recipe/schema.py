"""`python -m sdbuild.recipe.schema` rewrites the JSON Schemas and the reference pages that come from this room."""

from __future__ import annotations

import json
from pathlib import Path

from sdbuild.recipe.json_schema import Schema, recipe_schema, target_schema
from sdbuild.recipe.reference import preflight_page, recipe_page, target_page

__all__ = ["generated_files", "recipe_schema", "target_schema"]


def generated_files() -> dict[str, str]:
    """Every generated file: its path in the repository and its text."""
    return {
        "docs/schema/recipe.schema.json": _text(recipe_schema()),
        "docs/schema/target.schema.json": _text(target_schema()),
        "docs/reference/recipe.md": recipe_page(),
        "docs/reference/target.md": target_page(),
        "docs/reference/preflight.md": preflight_page(),
    }


def main() -> None:
    """Rewrite the generated files of the repository in which this package stands."""
    repository = Path(__file__).resolve().parents[2]
    for name, text in generated_files().items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(name)


def _text(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
