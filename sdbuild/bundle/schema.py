"""`bundle.json` as types: its JSON Schema for those who read it, and the check that a document is one.

`python -m sdbuild.bundle.schema` writes the schema. Keys that a reader does not know may be there: later versions add
some, and `format` is raised when the meaning of one changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdbuild.bundle.settings import SwiftPackage

SCHEMA = "docs/schema/bundle.schema.json"
"""The schema's place in the repository."""

_DIGEST = r"^sha256:[0-9a-f]{64}$"


class _Part(BaseModel):
    """A mapping of the document, in which further keys may stand."""

    model_config = ConfigDict(extra="allow", strict=True)


class Size(_Part):
    """Rows and columns."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Origin(_Part):
    """Where a checkpoint came from."""

    version: str = Field(description="`owner/name`, a directory's name, or `builtin:NAME`.")
    revision: str | None = Field(description="The commit on the Hub; null elsewhere.")
    source: Literal["hub", "directory", "file", "builtin"]
    file: str | None = Field(default=None, description="The file that was taken of a repository.")


class Named(Origin):
    """A ControlNet or T2I-Adapter."""

    name: str = Field(description="Its file in `controlnet` or `t2i_adapter`, without suffix.")


class FusedLora(Origin):
    """A LoRA in the weights."""

    weight: str = Field(description="How strongly, a decimal.")


class Inversion(Origin):
    """A textual inversion in the tokenizer and the text encoders."""

    token: str = Field(description="The word.")
    vectors: int = Field(gt=0, description="How many tokens it takes.")
    tokens: list[str] = Field(description="What an app writes in the prompt for it.")
    changes: list[str] = Field(description="Other words that are read otherwise because of it.")


class Device(_Part):
    """The device that the bundle was built for."""

    name: str
    device: str
    chip: str
    os: str
    os_version: str
    compute_unit: str


class UnetFacts(_Part):
    """How the UNet was built."""

    batch: Literal[1, 2]
    chunks: Literal[1, 2]


class Vae(_Part):
    """The latent space: latents are `(z − shift_factor) × scaling_factor`."""

    scaling_factor: float = Field(gt=0)
    shift_factor: float
    latent_channels: int = Field(gt=0)


class Tokenizer(_Part):
    """The tokenizer's files."""

    padding_token: str
    files: dict[str, str] = Field(description="File in `Resources` → `sha256:` and its digest.")


class ModelMemory(_Part):
    """Bytes that one model needs on the target."""

    weights: int = Field(ge=0)
    activations: int = Field(ge=0)


class Memory(_Part):
    """Bytes that the whole bundle needs on the target."""

    all_models: int = Field(ge=0, description="With every model loaded.")
    one_at_a_time: int = Field(ge=0, description="With each loaded only while it is needed, in the fullest phase.")
    reserve: int = Field(ge=0, description="For the app itself and Core ML; counted in both.")
    reduce_memory: bool = Field(description="Whether the app is to load one at a time.")
    app_memory: int = Field(ge=0, description="What an app may use.")
    fits: bool


class Tensor(_Part):
    """An input or output."""

    name: str
    shape: list[int]
    dtype: str


class Model(_Part):
    """One model in `Resources`."""

    file: str = Field(description="Its path in `Resources`.")
    part: str = Field(description="The part of the recipe that it was made for.")
    bytes: int = Field(ge=0)
    digest: str = Field(pattern=_DIGEST)
    specification_version: int
    memory: ModelMemory | None
    bits: int | None = Field(description="For each compressed weight.")
    compression: str | None
    group_size: int | None
    precision: Literal["float16", "float32"]
    attention_implementation: str | None
    license: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class BundleDocument(_Part):
    """What a bundle is, for the app that ships it and for the tools that check it."""

    format: Literal[1] = Field(description="Raised when the meaning of a key changes.")
    recipe: str
    family: Literal["sd1", "sd2", "sdxl", "sdxl-refiner", "sd3"] | None
    task: Literal["text-to-image", "inpainting", "instruct-pix2pix"] | None
    guidance_embedding: int | None = Field(description="Its width, for latent consistency models.")
    extensions: list[str] = Field(description="What an app must do beyond what the Swift package does; [] for none.")
    model: Origin
    license: str
    target: Device
    compute_unit: str
    memory: Memory | None
    deployment_target: Literal["iOS16", "iOS17", "iOS18"]
    minimum_os: dict[str, str] = Field(description="`iOS` and `macOS` → the oldest system that loads the models.")
    components: list[str]
    attention_implementation: str
    latent: Size
    image: Size
    text_sequence_length: int = Field(gt=0)
    clip_skip: int | None = Field(default=None, description="CLIP's layers that are left out, if the recipe says so.")
    unet: UnetFacts
    prediction_type: str = Field(description="What the denoiser gives: `epsilon`, `v_prediction`, `flow_prediction` …")
    checkpoint_prediction_type: str = Field(description="What the checkpoint predicts; noise may be computed from it.")
    scheduler: dict[str, Any] = Field(description="As diffusers writes it, set for these models.")
    vae: Vae
    force_zeros_for_empty_prompt: bool
    tokenizer: Tokenizer | None = None
    controlnets: list[Named]
    t2i_adapters: list[Named] = []
    vae_checkpoint: Origin | None
    loras: list[FusedLora]
    textual_inversions: list[Inversion] = []
    refiner: Origin | None
    allowed_rules: list[str] = Field(description="Preflight rules that the recipe overruled.")
    compiled: bool = Field(description="Whether `Resources` holds compiled models; else packages.")
    models: dict[str, Model] = Field(description="Path in `Resources` without suffix → the model.")
    sources: Any = Field(default=None, description="What became of all that the sources hold.")
    swift_package: SwiftPackage = Field(description="What an app sets to draw with Apple's Swift package.")
    verification: dict[str, Any] | Literal["not verified"]


def bundle_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `bundle.json`."""
    schema = BundleDocument.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "bundle.json of sdbuild"}


def schema_text() -> str:
    """The schema as its file holds it."""
    return json.dumps(bundle_schema(), indent=2, ensure_ascii=False) + "\n"


def mistakes(document: Any) -> list[str]:
    """What of a parsed `bundle.json` is not as the schema says: each with its place."""
    try:
        # By way of JSON, in which a list is no tuple and whole numbers are floats too.
        BundleDocument.model_validate_json(json.dumps(document))
    except ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return []


def main() -> None:
    """Rewrite the schema of the repository in which this package stands."""
    path = Path(__file__).resolve().parents[2] / SCHEMA
    path.write_text(schema_text(), encoding="utf-8", newline="\n")
    print(SCHEMA)


if __name__ == "__main__":
    main()
