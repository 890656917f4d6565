"""JSON Schema of the two languages, for editors, made from the pydantic models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sdbuild.recipe.checks import NOT_OVERRIDABLE
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.rules.registry import RULES
from sdbuild.recipe.target import Target

Schema = dict[str, Any]

_EXTENDS = (
    "Another recipe to start from: its name, or the path of its file from this file's folder. What this file says is "
    "laid over it: mappings merge key by key, lists and single values replace, and null takes a setting back to its "
    "default. `name` and `description` are not inherited."
)
# What a complete recipe must say; one that extends another may leave any of it to that one.
_REQUIRED_IN = {"model": ["version"], "latent": ["height", "width"]}


def recipe_schema() -> Schema:
    """The JSON Schema (draft 7, which every editor knows) of a recipe's file."""
    schema = _schema(Recipe, "sdbuild recipe")
    required = [key for key in schema.pop("required") if key != "name"]
    properties = schema["properties"]
    schema["properties"] = {
        "name": properties.pop("name"),
        "description": properties.pop("description"),
        "extends": {"type": "string", "description": _EXTENDS, "examples": ["sd15-ios", "./base.yaml"]},
        **properties,
    }
    for key in _REQUIRED_IN:
        if (definition := definition_of(schema, properties[key])) is not None:
            definition.pop("required")
    for key in ("controlnets", "t2i_adapters"):
        properties[key]["items"] = {"allOf": [properties[key]["items"]], "required": ["version"]}
    properties["sizes"]["items"] = {"allOf": [properties["sizes"]["items"]], "required": ["height", "width"]}
    for key in ("tokenizer", "vae"):
        properties[key]["required"] = ["version"]
    properties["allow"]["items"] = {
        "anyOf": [{"const": rule.name, "description": f"{rule.summary} {rule.reason}"} for rule in RULES.values()]
    }
    properties["overrides"]["additionalProperties"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: value for key, value in properties.items() if key not in NOT_OVERRIDABLE},
    }
    complete = {key: {"required": keys} for key, keys in _REQUIRED_IN.items()}
    schema["required"] = ["name"]
    schema["if"] = {"required": ["extends"]}
    schema["then"] = {}
    schema["else"] = {"required": required, "properties": complete}
    return schema


def target_schema() -> Schema:
    """The JSON Schema (draft 7) of a target's file."""
    return _schema(Target, "sdbuild target")


def _schema(model: type[BaseModel], title: str) -> Schema:
    schema = model.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs", {})
    for part in (schema, *definitions.values()):
        part.pop("title", None)
        for value in part.get("properties", {}).values():
            value.pop("title", None)
            if isinstance(value.get("default"), dict):  # the defaults of a mapping's fields stand with the fields
                del value["default"]
            if "$ref" in value:  # draft 7 ignores what stands beside a reference
                value["allOf"] = [{"$ref": value.pop("$ref")}]
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": title}
    return head | schema | {"definitions": definitions}


def definition_of(schema: Schema, prop: Schema) -> Schema | None:
    """The definition that a field, or each item of a list, refers to."""
    for holder in (prop, prop.get("items", {})):
        references = [holder, *holder.get("allOf", ()), *holder.get("anyOf", ())]
        for reference in references:
            if "$ref" in reference:
                found: Schema = schema["definitions"][reference["$ref"].removeprefix("#/definitions/")]
                return found
    return None
