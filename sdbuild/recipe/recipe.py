"""The recipe as a validated value: what to build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from sdbuild.recipe.single_file import SUFFIXES, PredictionType
from sdbuild.recipe.tokens import EMBEDDING_SUFFIXES, TokenError, check_token
from sdbuild.recipe.vocabulary import (
    LINEAR_8,
    AttentionImplementation,
    Bits,
    Component,
    ComputeUnit,
    DeploymentTarget,
    Gate,
    GroupSize,
    Name,
    OneOrTwo,
    Precision,
    SheetBits,
)

_HUB_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_BUILTIN_PATTERN = re.compile(r"builtin:[a-z0-9]+([._-][a-z0-9]+)*")
_REVISION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls a LoRA's file."""
EMBEDDING_FILE = "learned_embeds.safetensors"
"""What diffusers calls a textual inversion's file."""
_EMBEDDING_FILES = f"{', '.join(EMBEDDING_SUFFIXES[:-1])} or {EMBEDDING_SUFFIXES[-1]}"
COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}")


class Part(BaseModel):
    """What every mapping of a recipe or target is: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    known_besides: ClassVar[tuple[str, ...]] = ()
    """Keys that the language has here and the value has not: they are resolved before."""


class ModelKind(StrEnum):
    """Where a model's files come from."""

    HUB = "hub"
    DIRECTORY = "directory"
    FILE = "file"
    BUILTIN = "builtin"


def _check_version(version: str) -> str:
    if version.startswith("builtin:"):
        if _BUILTIN_PATTERN.fullmatch(version):
            return version
        raise PydanticCustomError(
            "model_version", "not the name of a builtin checkpoint", {"help": "write it like `builtin:tiny-sd`"}
        )
    if version.startswith((".", "/", "~")) and version.isprintable():
        return version
    if _HUB_PATTERN.fullmatch(version) and ".." not in version and "--" not in version:
        return version
    raise PydanticCustomError(
        "model_version",
        "not a Hub id, a directory or a builtin checkpoint",
        {"help": "write `organisation/name`, a path that starts with `.`, `/` or `~`, or `builtin:NAME`"},
    )


def _check_file(file: str) -> str:
    parts = file.split("/")
    if file.endswith(SUFFIXES) and file.isprintable() and not any(part in ("", ".", "..") for part in parts):
        return file
    raise PydanticCustomError(
        "single_file", "not a single-file checkpoint", {"help": f"name a file that ends with {' or '.join(SUFFIXES)}"}
    )


def _check_revision(revision: str) -> str:
    if _REVISION_PATTERN.fullmatch(revision) and ".." not in revision and "//" not in revision:
        return revision
    raise PydanticCustomError(
        "revision",
        "not a branch, tag or commit",
        {"help": "write the commit: 40 hexadecimal digits, in quotes if all are decimal"},
    )


class Reference(Part):
    """Files that a recipe names: on the Hub, on this machine, or made by sdbuild itself."""

    version: Annotated[str, AfterValidator(_check_version)] = Field(
        description="Where the checkpoint is: a Hub id `organisation/name`; a directory in diffusers layout or a "
        "single `.safetensors` or `.ckpt` file, as a path that starts with `.`, `/` or `~` (`.` is the folder of the "
        "file that says it); or `builtin:NAME`, a small checkpoint that sdbuild makes itself.",
        examples=["stable-diffusion-v1-5/stable-diffusion-v1-5", "../checkpoints/mine", "builtin:tiny-sd"],
    )
    revision: Annotated[str, AfterValidator(_check_revision)] | None = Field(
        default=None,
        description="For a Hub id: the commit, 40 hexadecimal digits. A branch or tag is refused by the preflight rule "
        "`unpinned-revision`, because it can mean other files tomorrow.",
        examples=["451f4fe16113bff5a5d2269ed5ad43b0592e9a14"],
    )
    file: Annotated[str, AfterValidator(_check_file)] | None = Field(
        default=None,
        description="For a Hub id: the single-file checkpoint in the repository to take, `.safetensors` or `.ckpt`. "
        "Without it, the repository is in diffusers layout.",
        examples=["v1-5-pruned-emaonly.safetensors"],
    )

    @property
    def kind(self) -> ModelKind:
        """Hub, local directory, local single file or builtin."""
        if self.version.startswith("builtin:"):
            return ModelKind.BUILTIN
        if not self.version.startswith((".", "/", "~")):
            return ModelKind.HUB
        return ModelKind.FILE if self.version.endswith(SUFFIXES) else ModelKind.DIRECTORY

    @property
    def is_single_file(self) -> bool:
        """Whether the checkpoint is one file that holds all components."""
        return self.file is not None or self.kind is ModelKind.FILE

    @property
    def is_pinned(self) -> bool:
        """Whether the reference can never mean other files: a Hub id at a commit, or a builtin checkpoint."""
        if self.kind is ModelKind.HUB:
            return self.revision is not None and COMMIT_PATTERN.fullmatch(self.revision) is not None
        return self.kind is ModelKind.BUILTIN


def _check_local(version: str) -> str:
    if version.startswith((".", "/", "~")) and version.isprintable():
        return version
    raise PydanticCustomError("local_path", "not a path", {"help": "write a path that starts with `.`, `/` or `~`"})


class Projection(Part):
    """A linear layer as a TorchScript file."""

    version: Annotated[str, AfterValidator(_check_local)] = Field(
        description="The file's path; `.` is the folder of the file that says it.", examples=["../projection.pt"]
    )


class ModelReference(Reference):
    """A checkpoint in diffusers layout, or in a single file."""

    prediction_type: PredictionType | None = Field(
        default=None,
        description="For a single file: what its UNet predicts, `epsilon` or `v_prediction`. Without it, `epsilon`, or "
        "what a marker in the file says; SD 2.x must say it, because nothing in its files does.",
    )


def _check_lora_version(version: str) -> str:
    if version.startswith("builtin:") or (version.startswith((".", "/", "~")) and not version.endswith(SUFFIXES)):
        raise PydanticCustomError(
            "model_version",
            "not a Hub id or a LoRA's file",
            {"help": f"write `organisation/name`, or the path of a {' or '.join(SUFFIXES)} file"},
        )
    return _check_version(version)


class Lora(Reference):
    """A LoRA, added to the weights of UNet and text encoders before they are converted."""

    version: Annotated[str, AfterValidator(_check_lora_version)] = Field(
        description="Where the LoRA is: a Hub id `organisation/name`, or a `.safetensors` file, as a path that starts "
        "with `.`, `/` or `~`.",
        examples=["latent-consistency/lcm-lora-sdv1-5", "../loras/mine.safetensors"],
    )
    file: Annotated[str, AfterValidator(_check_file)] | None = Field(
        default=None,
        description=f"For a Hub id: the LoRA's file in the repository. Without it, `{LORA_FILE}`.",
        examples=["pixel-art.safetensors"],
    )
    weight: float = Field(default=1.0, ge=-10, le=10, description="What the LoRA's difference is multiplied with.")

    @property
    def is_single_file(self) -> bool:
        """A LoRA is always one file."""
        return True

    @property
    def resolved(self) -> Lora:
        """The same with the file's name written out, where it is on the Hub."""
        if self.kind is not ModelKind.HUB or self.file is not None:
            return self
        return self.model_copy(update={"file": LORA_FILE})


def _check_embedding(version: str) -> str:
    is_path = version.startswith((".", "/", "~"))
    if version.startswith("builtin:") or (is_path and not version.endswith(EMBEDDING_SUFFIXES)):
        help_ = f"write `organisation/name`, or the path of a {_EMBEDDING_FILES} file"
        raise PydanticCustomError("model_version", "not a Hub id or a textual inversion's file", {"help": help_})
    return _check_version(version)


def _check_embedding_file(file: str) -> str:
    parts = file.split("/")
    if file.endswith(EMBEDDING_SUFFIXES) and file.isprintable() and not any(part in ("", ".", "..") for part in parts):
        return file
    help_ = f"name a file that ends with {_EMBEDDING_FILES}"
    raise PydanticCustomError("single_file", "not a textual inversion's file", {"help": help_})


def _check_word(token: str) -> str:
    try:
        return check_token(token)
    except TokenError as error:
        raise PydanticCustomError(
            "token", "{what}", {"what": str(error), "help": "write it like `<my-word>`"}
        ) from error


class TextualInversion(Reference):
    """A textual inversion: a word of the prompt with vectors that were trained for it, one or several."""

    version: Annotated[str, AfterValidator(_check_embedding)] = Field(
        description="Where the embedding is: a Hub id `organisation/name`, or a `.safetensors`, `.pt` or `.bin` file, "
        "as a path that starts with `.`, `/` or `~`.",
        examples=["sd-concepts-library/cat-toy", "../embeddings/mine.pt"],
    )
    file: Annotated[str, AfterValidator(_check_embedding_file)] | None = Field(
        default=None,
        description=f"For a Hub id: the embedding's file in the repository. Without it, `{EMBEDDING_FILE}`.",
        examples=["learned_embeds.bin"],
    )
    token: Annotated[str, AfterValidator(_check_word)] | None = Field(
        default=None,
        description="The word to write in prompts, of ASCII letters, digits and signs; capitals make no difference. "
        "Without it, the one that the file names.",
        examples=["<cat-toy>"],
    )

    @property
    def kind(self) -> ModelKind:
        """Hub or local single file."""
        return ModelKind.FILE if self.version.startswith((".", "/", "~")) else ModelKind.HUB

    @property
    def is_single_file(self) -> bool:
        """A textual inversion is always one file."""
        return True

    @property
    def resolved(self) -> TextualInversion:
        """The same with the file's name written out, where it is on the Hub."""
        if self.kind is not ModelKind.HUB or self.file is not None:
            return self
        return self.model_copy(update={"file": EMBEDDING_FILE})


class Latent(Part):
    """The size of the latent image; the picture is eight times as high and wide."""

    height: int = Field(ge=8, le=512, description="Rows of the latent image; the picture has 8 times as many.")
    width: int = Field(ge=8, le=512, description="Columns of the latent image; the picture has 8 times as many.")

    @property
    def picture(self) -> str:
        """The picture's size as names have it: `768x512`, height before width."""
        return f"{8 * self.height}x{8 * self.width}"


class Unet(Part):
    """How the UNet is built."""

    batch: OneOrTwo = Field(
        default=2, description="2 for guidance (conditional and unconditional together); 1 for models that need none."
    )
    chunks: OneOrTwo = Field(
        default=1,
        description="2 splits the UNet into two models of nearly equal size, each loaded alone; 1 keeps it whole.",
    )


class PerPart(Part):
    """A setting for each part of the pipeline; a part that is not named has the default.

    It reads like a mapping too: `get(part)`, `part in setting`.
    """

    def get(self, part: str, default: Any = None) -> Any:
        """The part's setting, or `default` where the recipe says nothing."""
        value = getattr(self, str(part), None)
        return default if value is None else value

    def __contains__(self, part: str) -> bool:
        return getattr(self, str(part), None) is not None

    def named(self) -> dict[str, Any]:
        """The parts that the recipe names and their settings."""
        return {part: value for part in type(self).model_fields if (value := getattr(self, part)) is not None}


_BITS = (
    "Bits for each weight of {}: 1, 2, 3, 4, 6 or 8 with look-up tables, `linear8` for 8-bit integers with a scale for "
    "each output channel, or `none` to keep its precision."
)
_GROUPS = "Output channels that share a look-up table in {}."
_PRECISION = "Precision of the weights and the arithmetic of {}."
_GATES = "What verification asks of {}."


class Quantization(PerPart):
    """Bits for each weight, by part of the pipeline; a part that is not named keeps its precision."""

    text_encoder: Bits | None = Field(default=None, description=_BITS.format("the text encoder"))
    text_encoder_2: Bits | None = Field(default=None, description=_BITS.format("the second text encoder"))
    text_encoder_3: Bits | None = Field(default=None, description=_BITS.format("SD 3's third text encoder, T5"))
    unet: Bits | None = Field(default=None, description=_BITS.format("the UNet"))
    unet_refiner: Bits | None = Field(default=None, description=_BITS.format("the refiner's UNet"))
    transformer: Bits | None = Field(default=None, description=_BITS.format("SD 3's transformer"))
    vae_decoder: Bits | None = Field(default=None, description=_BITS.format("the VAE's decoder"))
    vae_encoder: Bits | None = Field(default=None, description=_BITS.format("the VAE's encoder"))
    safety_checker: Bits | None = Field(default=None, description=_BITS.format("the safety checker"))
    controlnet: Bits | None = Field(default=None, description=_BITS.format("every ControlNet"))
    t2i_adapter: Bits | None = Field(default=None, description=_BITS.format("every T2I-Adapter"))


class Groups(PerPart):
    """Output channels that share a look-up table, by part; a part that is not named has one table for each tensor."""

    text_encoder: GroupSize | None = Field(default=None, description=_GROUPS.format("the text encoder"))
    text_encoder_2: GroupSize | None = Field(default=None, description=_GROUPS.format("SDXL's second text encoder"))
    unet: GroupSize | None = Field(default=None, description=_GROUPS.format("the UNet"))
    unet_refiner: GroupSize | None = Field(default=None, description=_GROUPS.format("the refiner's UNet"))
    vae_decoder: GroupSize | None = Field(default=None, description=_GROUPS.format("the VAE's decoder"))
    vae_encoder: GroupSize | None = Field(default=None, description=_GROUPS.format("the VAE's encoder"))
    safety_checker: GroupSize | None = Field(default=None, description=_GROUPS.format("the safety checker"))
    controlnet: GroupSize | None = Field(default=None, description=_GROUPS.format("every ControlNet"))
    t2i_adapter: GroupSize | None = Field(default=None, description=_GROUPS.format("every T2I-Adapter"))


class Precisions(PerPart):
    """float16 or float32, by part of the pipeline.

    Where nothing is said, float16, but float32 for SDXL's VAE and for SD 3's transformer.
    """

    text_encoder: Precision | None = Field(default=None, description=_PRECISION.format("the text encoder"))
    text_encoder_2: Precision | None = Field(default=None, description=_PRECISION.format("the second text encoder"))
    text_encoder_3: Precision | None = Field(
        default=None, description=_PRECISION.format("SD 3's third text encoder, T5")
    )
    unet: Precision | None = Field(default=None, description=_PRECISION.format("the UNet"))
    unet_refiner: Precision | None = Field(default=None, description=_PRECISION.format("the refiner's UNet"))
    transformer: Precision | None = Field(default=None, description=_PRECISION.format("SD 3's transformer"))
    vae_decoder: Precision | None = Field(default=None, description=_PRECISION.format("the VAE's decoder"))
    vae_encoder: Precision | None = Field(default=None, description=_PRECISION.format("the VAE's encoder"))
    safety_checker: Precision | None = Field(default=None, description=_PRECISION.format("the safety checker"))
    controlnet: Precision | None = Field(default=None, description=_PRECISION.format("every ControlNet"))
    t2i_adapter: Precision | None = Field(default=None, description=_PRECISION.format("every T2I-Adapter"))


class Gates(Part):
    """The signal that a part must keep against the original model, in dB of PSNR; gates have defaults."""

    structure_db: Gate | None = Field(
        default=None, description="Lowest PSNR of the program executed in float32: shows faults of structure."
    )
    signal_db: Gate | None = Field(
        default=None, description="Lowest PSNR with every half-precision result rounded: what the device will see."
    )
    palettized_db: Gate | None = Field(default=None, description="Lowest PSNR of the palettized model.")


class Verification(PerPart):
    """Gates of verification, by part of the pipeline."""

    text_encoder: Gates | None = Field(default=None, description=_GATES.format("the text encoder"))
    text_encoder_2: Gates | None = Field(default=None, description=_GATES.format("the second text encoder"))
    text_encoder_3: Gates | None = Field(default=None, description=_GATES.format("SD 3's third text encoder, T5"))
    unet: Gates | None = Field(default=None, description=_GATES.format("the UNet"))
    unet_refiner: Gates | None = Field(default=None, description=_GATES.format("the refiner's UNet"))
    transformer: Gates | None = Field(default=None, description=_GATES.format("SD 3's transformer"))
    vae_decoder: Gates | None = Field(default=None, description=_GATES.format("the VAE's decoder"))
    vae_encoder: Gates | None = Field(default=None, description=_GATES.format("the VAE's encoder"))
    safety_checker: Gates | None = Field(default=None, description=_GATES.format("the safety checker"))
    controlnet: Gates | None = Field(default=None, description=_GATES.format("every ControlNet"))
    t2i_adapter: Gates | None = Field(default=None, description=_GATES.format("every T2I-Adapter"))


class ContactSheet(Part):
    """A picture that shows what compression costs: prompts down, precisions across."""

    prompts: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = Field(
        min_length=1, max_length=12, description="What to draw, a row each."
    )
    bits: tuple[SheetBits, ...] = Field(
        default=(8, 6, 4, 2),
        max_length=6,
        description="Bits for each weight of the UNet, a column each; PyTorch's own pictures and the UNet as it was "
        "converted stand before them.",
    )
    steps: int = Field(default=20, ge=1, le=200, description="Denoising steps of each picture.")
    guidance_scale: float = Field(
        default=7.5, ge=0, le=100, description="How strongly prompts steer; 1 or less means no guidance."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of each picture.")


class Recipe(Part):
    """What to build: a model version, the components of its pipeline, how each is converted, and for which targets."""

    known_besides = ("extends",)

    name: Name = Field(description="The recipe's name; its file is called `NAME.yaml`.", examples=["sdxl-ios"])
    description: str = Field(default="", max_length=500, description="One sentence for tables and for the bundle.")
    model: ModelReference = Field(description="The checkpoint.")
    tokenizer: ModelReference | None = Field(
        default=None,
        description="Whose tokenizer to use instead of the checkpoint's own: a pipeline of the same family in "
        "diffusers layout, of which only `tokenizer/` and `tokenizer_2/` are read. A single file holds none, so it "
        "needs this.",
    )
    vae: ModelReference | None = Field(
        default=None,
        description="Another VAE than the checkpoint's own: a repository or directory with the VAE alone, or a "
        "pipeline whose `vae/` is taken.",
        examples=[{"version": "madebyollin/sdxl-vae-fp16-fix"}],
    )
    loras: tuple[Lora, ...] = Field(
        default=(), max_length=16, description="LoRAs, each with its weight, fused before conversion."
    )
    textual_inversions: tuple[TextualInversion, ...] = Field(
        default=(), max_length=16, description="Textual inversions: new words, added to tokenizer and text encoders."
    )
    components: tuple[Component, ...] = Field(min_length=1, description="The models that the bundle holds.")
    attention_implementation: AttentionImplementation | None = Field(
        default=None,
        description="How attention is written in the denoiser and the ControlNets: `ORIGINAL` for the GPU, "
        "`SPLIT_EINSUM` for the Neural Engine, `SPLIT_EINSUM_V2` for it with chunked queries, "
        "`SDPA` as one fused operation from iOS 18 and macOS 15 on. Without it, what each target prefers.",
    )
    compute_unit: ComputeUnit | None = Field(
        default=None,
        description="The processors on which the app runs the UNet and the ControlNets. Without it, what each target "
        "prefers.",
    )
    reduce_memory: bool | None = Field(
        default=None,
        description="Whether the app loads each model only while it is needed, as `reduceMemory` of the Swift package "
        "does; the memory estimate counts on it and `bundle.json` says so. Without it, what each target prefers.",
    )
    latent: Latent = Field(description="The size of the latent image.")
    sizes: tuple[Latent, ...] = Field(
        default=(),
        max_length=16,
        description="Further sizes of the latent image. Each becomes a bundle of its own, called after target and "
        "picture (`iphone-15-pro-768x512`, height before width), which shares with the first whatever its size does "
        "not change.",
    )
    text_sequence_length: int = Field(
        default=77, ge=1, le=512, description="Tokens of the text that the denoiser attends to."
    )
    unet: Unet = Field(default=Unet(), description="The UNet's batch and chunks.")
    quantization: Quantization = Field(
        default=Quantization(), description="Bits for each weight, by part of the pipeline."
    )
    group_size: Groups = Field(
        default=Groups(),
        description="Output channels that share a look-up table, by part of the pipeline; from iOS 18 and macOS 15 on.",
    )
    precision: Precisions = Field(
        default=Precisions(), description="Floating-point precision, by part of the pipeline."
    )
    controlnets: tuple[ModelReference, ...] = Field(
        default=(), max_length=16, description="ControlNets in the bundle; with any, the UNet takes their residuals."
    )
    t2i_adapters: tuple[ModelReference, ...] = Field(
        default=(),
        max_length=16,
        description="T2I-Adapters in the bundle, for SD 1.x and SDXL; with any, there is a UNet that takes their "
        "features.",
    )
    refiner: ModelReference | None = Field(
        default=None,
        description="For SDXL: the refiner's checkpoint, whose UNet stands beside the base's and draws the last steps.",
    )
    multilingual_projection: Projection | None = Field(
        default=None,
        description="For SD 1 and 2: a linear layer from contextual embeddings of texts in many languages to text "
        "states, as a TorchScript file; it takes the text encoder's place, with 256 tokens.",
    )
    minimum_deployment_target: DeploymentTarget = Field(
        default=DeploymentTarget.IOS16, description="The oldest operating system that the models must run on."
    )
    targets: tuple[Name, ...] = Field(
        min_length=1, description="The targets to build for, by the names of their files."
    )
    overrides: dict[str, dict[str, Any]] = Field(
        default={}, description="Changes for a single target: target name → the fields that differ there."
    )
    contact_sheet: ContactSheet | None = Field(
        default=None, description="Pictures to draw with every build, for its first target; none by default."
    )
    allow: tuple[str, ...] = Field(
        default=(), description="Preflight rules that this recipe overrules, by name; the bundle then says so."
    )
    verify: Verification = Field(default=Verification(), description="The least signal that verification accepts.")

    def at_sizes(self) -> tuple[Recipe, ...]:
        """The recipe for each of its sizes, the first one first."""
        latents = dict.fromkeys((self.latent, *self.sizes))
        return tuple(self.model_copy(update={"latent": latent, "sizes": ()}) for latent in latents)

    def references(self) -> Iterator[tuple[tuple[str | int, ...], Reference]]:
        """Every model that the recipe names, with its place in the recipe."""
        for name in ("model", "tokenizer", "vae", "refiner"):
            if (reference := getattr(self, name)) is not None:
                yield (name,), reference
        for index, reference in enumerate(self.controlnets):
            yield ("controlnets", index), reference
        for index, reference in enumerate(self.t2i_adapters):
            yield ("t2i_adapters", index), reference
        for index, lora in enumerate(self.loras):
            yield ("loras", index), lora
        for index, inversion in enumerate(self.textual_inversions):
            yield ("textual_inversions", index), inversion

    @property
    def deployment_target(self) -> Literal["iOS16", "iOS17", "iOS18"]:
        """The minimum deployment target under its normalised name."""
        return self.minimum_deployment_target.normalised

    def bits(self, part: str) -> int | None:
        """Bits for each weight of a component, the ControlNets or the T2I-Adapters; None to keep the precision."""
        bits = self.quantization.get(part, "none")
        if bits == LINEAR_8:
            return 8
        return None if bits == "none" else int(bits)

    def is_linear(self, part: str) -> bool:
        """Whether the weights of a part become integers with scales instead of indices into tables."""
        return bool(self.quantization.get(part) == LINEAR_8)

    def precision_of(self, part: str, family: str | None = None) -> Precision:
        """The precision of a component, the ControlNets or the T2I-Adapters.

        Args:
            part: a component's name, `controlnet` or `t2i_adapter`.
            family: the checkpoint's family; SDXL's VAE overflows in half precision and SD 3's transformer is known to
                work in float32 alone, so they are float32 unless stated.
        """
        stated: Precision | None = self.precision.get(part)
        if stated is not None:
            return stated
        is_xl_vae = part in (Component.VAE_DECODER, Component.VAE_ENCODER) and family in ("sdxl", "sdxl-refiner")
        return "float32" if is_xl_vae or part == Component.TRANSFORMER else "float16"
