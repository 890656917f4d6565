"""What a model says of itself: author, license, version, description, and a sentence for every input and output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdbuild.tensors import TensorSpec


@dataclass(frozen=True)
class ModelMetadata:
    """Texts that Xcode and `MLModelDescription` show.

    Attributes:
        author: who made the model.
        license: the license's name or text.
        version: the model's version, e.g. a repository and its revision.
        description: one or two sentences.
        user_defined: further pairs; nothing that changes from one build to the next, such as a date.
    """

    author: str = ""
    license: str = ""
    version: str = ""
    description: str = ""
    user_defined: Mapping[str, str] = field(default_factory=dict)


def write_metadata(
    model: Any, metadata: ModelMetadata, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Put metadata and feature descriptions into a `Model` message."""
    description = model.description
    description.metadata.author = metadata.author
    description.metadata.license = metadata.license
    description.metadata.versionString = metadata.version
    description.metadata.shortDescription = metadata.description
    for key in sorted(metadata.user_defined):
        description.metadata.userDefined[key] = metadata.user_defined[key]
    sentences = {spec.name: spec.description for spec in (*inputs, *outputs)}
    for feature in (*description.input, *description.output):
        feature.shortDescription = sentences[feature.name]
