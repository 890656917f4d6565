"""What a model takes and gives, read from a package or from a compiled model without Core ML or coremltools.

A package's facts are in its protobuf specification (`Model.description`, coremltools' `mlmodel/format/Model.proto`), a
compiled model's in the `metadata.json` that Apple's compiler writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.wire import WireError, fields, integers, message, text
from sdbuild.documents import read_bytes, read_json
from sdbuild.interface.swift.files import COMPILED
from sdbuild.paths import inside

_LARGEST_SPECIFICATION = 2**31  # bytes; protobuf's own limit
# ArrayFeatureType.ArrayDataType
_ARRAY_TYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8"}
# FeatureType's cases that are no multi-array
_OTHER_TYPES = {1: "int64", 2: "double", 3: "string", 4: "image", 6: "dictionary", 7: "sequence", 8: "state"}
_COMPILED_TYPES = {"Float16": "float16", "Float32": "float32", "Double": "float64", "Int32": "int32", "Int8": "int8"}


@dataclass(frozen=True)
class Feature:
    """One input or output.

    Attributes:
        name: the feature's name.
        shape: the default shape; empty for what is no multi-array.
        dtype: the element type of a multi-array (`float16`, `float32`, `float64`, `int32`, `int8`), else the kind of
            feature (`image`, `dictionary`, …).
        description: the sentence that Xcode shows.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    description: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Interface:
    """A model's inputs and outputs (of its default function) and what it says of itself.

    Attributes:
        inputs: in the model's order.
        outputs: in the model's order.
        specification_version: of Core ML's format: 7 is iOS 16, 8 iOS 17, 9 iOS 18.
        author: who made the model.
        license: its license.
        version: its version.
        description: what it is.
    """

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    specification_version: int
    author: str = ""
    license: str = ""
    version: str = ""
    description: str = ""


def read_interface(model: Path) -> Interface:
    """Read the interface of an `.mlpackage` or `.mlmodelc` directory.

    Raises:
        BundleError: the model's files are missing or malformed.
    """
    read = _read_compiled if model.suffix == COMPILED else _read_package
    try:
        return read(model)
    except FileNotFoundError as error:
        raise BundleError(f"{model}: {Path(error.filename).name} is missing; the model is incomplete") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BundleError(f"{model}: cannot be read ({type(error).__name__}: {error})") from error


def specification_of(package: Path) -> memoryview:
    """The bytes of a package's protobuf specification."""
    manifest = read_json(package / "Manifest.json")
    item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    return memoryview(read_bytes(inside(package / "Data", item["path"]), _LARGEST_SPECIFICATION))


def _read_package(model: Path) -> Interface:
    specification = specification_of(model)
    version, description = 0, None
    for number, value in fields(specification):
        if number == 1 and isinstance(value, int):
            version = value
        elif number == 2:
            description = message(value)
    if description is None:
        raise WireError("the specification has no description")
    inputs, outputs, functions, default, metadata = [], [], {}, "main", {}
    for number, value in fields(description):
        match number:
            case 1:
                inputs.append(_feature(message(value)))
            case 10:
                outputs.append(_feature(message(value)))
            case 20:
                name, *features = _function(message(value))
                functions[name] = features
            case 21:
                default = text(value)
            case 100:
                metadata = {key: text(item) for key, item in fields(message(value)) if key in (1, 2, 3, 4)}
    if functions and not inputs:
        inputs, outputs = functions[default]
    return Interface(
        tuple(inputs),
        tuple(outputs),
        version,
        metadata.get(3, ""),
        metadata.get(4, ""),
        metadata.get(2, ""),
        metadata.get(1, ""),
    )


def _function(view: memoryview) -> tuple[str, list[Feature], list[Feature]]:
    name, inputs, outputs = "", [], []
    for number, value in fields(view):
        match number:
            case 1:
                name = text(value)
            case 2:
                inputs.append(_feature(message(value)))
            case 3:
                outputs.append(_feature(message(value)))
    return name, inputs, outputs


def _feature(view: memoryview) -> Feature:
    name = description = dtype = ""
    shape: tuple[int, ...] = ()
    for number, value in fields(view):
        match number:
            case 1:
                name = text(value)
            case 2:
                description = text(value)
            case 3:
                shape, dtype = _type(message(value))
    return Feature(name, shape, dtype, description)


def _type(view: memoryview) -> tuple[tuple[int, ...], str]:
    for number, value in fields(view):
        if number in _OTHER_TYPES:
            return (), _OTHER_TYPES[number]
        if number == 5:
            shape: tuple[int, ...] = ()
            dtype = ""
            for inner, content in fields(message(value)):
                if inner == 1:
                    shape += integers(content)
                elif inner == 2 and isinstance(content, int):
                    dtype = _ARRAY_TYPES.get(content, f"type {content}")
            return shape, dtype
    return (), ""


def _read_compiled(model: Path) -> Interface:
    (model / "coremldata.bin").stat()
    (document,) = json.loads((model / "metadata.json").read_bytes())
    schema = document
    if not document.get("inputSchema") and document.get("functions"):
        named = {function["name"]: function for function in document["functions"]}
        schema = named[document.get("defaultFunctionName", "main")]
    return Interface(
        tuple(map(_compiled_feature, schema["inputSchema"])),
        tuple(map(_compiled_feature, schema["outputSchema"])),
        int(document.get("specificationVersion", 0)),
        document.get("author", ""),
        document.get("license", ""),
        document.get("version", ""),
        document.get("shortDescription", ""),
    )


def _compiled_feature(entry: dict[str, Any]) -> Feature:
    kind = entry.get("type", "MultiArray")
    if kind != "MultiArray":
        return Feature(entry["name"], (), kind.lower(), entry.get("shortDescription", ""))
    shape = tuple(json.loads(entry["shape"]))
    dtype = _COMPILED_TYPES.get(entry["dataType"], entry["dataType"])
    return Feature(entry["name"], shape, dtype, entry.get("shortDescription", ""))
