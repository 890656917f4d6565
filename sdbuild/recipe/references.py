"""Models, LoRAs and textual inversions, as recipes name them."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from sdbuild.checkpoints.lora.files import SUFFIXES as LORA_SUFFIXES
from sdbuild.checkpoints.markers import PredictionType
from sdbuild.checkpoints.single_file import SUFFIXES
from sdbuild.paths import is_relative
from sdbuild.recipe.part import Part
from sdbuild.recipe.tokens import EMBEDDING_SUFFIXES, TokenError, check_token

_HUB_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_BUILTIN_PATTERN = re.compile(r"builtin:[a-z0-9]+([._-][a-z0-9]+)*")
_REVISION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls a LoRA's file."""
EMBEDDING_FILE = "learned_embeds.safetensors"
"""What diffusers calls a textual inversion's file."""
_EMBEDDING_FILES = f"{', '.join(EMBEDDING_SUFFIXES[:-1])} or {EMBEDDING_SUFFIXES[-1]}"
COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}")


LIBRARIES = ("comfy", "a1111")
"""Programs whose folders of models a name can be looked up in."""
_LIBRARY_HELP = "write it like `comfy:NAME` or `a1111:NAME`, with the name of a model in that program's folders"


def library_of(version: str) -> tuple[str, str] | None:
    """The program and the name in `comfy:NAME`; None for all other versions."""
    program, colon, name = version.partition(":")
    return (program, name) if colon and program in LIBRARIES else None


def _is_local(version: str) -> bool:
    return version.startswith((".", "/", "~")) or library_of(version) is not None


class ModelKind(StrEnum):
    """Where a model's files come from."""

    HUB = "hub"
    DIRECTORY = "directory"
    FILE = "file"
    BUILTIN = "builtin"


def _check_version(version: str) -> str:
    if (named := library_of(version)) is not None:
        if is_relative(named[1]):
            return version
        raise PydanticCustomError("model_version", "not the name of a model", {"help": _LIBRARY_HELP})
    if version.startswith("builtin:"):
        if _BUILTIN_PATTERN.fullmatch(version):
            return version
        raise PydanticCustomError(
            "model_version", "not the name of a builtin checkpoint", {"help": "write it like `builtin:tiny-sd`"}
        )
    if version.startswith((".", "/", "~")) and version.isprintable():
        return version
    if _is_hub_id(version):
        return version
    raise PydanticCustomError(
        "model_version",
        "not a Hub id, a directory or a builtin checkpoint",
        {"help": "write `organisation/name`, a path that starts with `.`, `/` or `~`, or `builtin:NAME`"},
    )


def check_hub_id(version: str) -> str:
    """Return a Hub id, `organisation/name`, and refuse all else with pydantic's error."""
    if _is_hub_id(version):
        return version
    raise PydanticCustomError("hub_id", "not a Hub id", {"help": "write `organisation/name`"})


def _is_hub_id(version: str) -> bool:
    return _HUB_PATTERN.fullmatch(version) is not None and ".." not in version and "--" not in version


def _check_file(file: str) -> str:
    if file.endswith(SUFFIXES) and file.isprintable() and is_relative(file):
        return file
    raise PydanticCustomError(
        "single_file", "not a single-file checkpoint", {"help": f"name a file that ends with {' or '.join(SUFFIXES)}"}
    )


def check_revision(revision: str) -> str:
    """Return a branch, tag or commit, and refuse all else with pydantic's error."""
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
        "file that says it); `comfy:NAME` or `a1111:NAME`, a model in that program's folders; or `builtin:NAME`, a "
        "small checkpoint that sdbuild makes itself.",
        examples=["stable-diffusion-v1-5/stable-diffusion-v1-5", "../checkpoints/mine", "builtin:tiny-sd"],
    )
    revision: Annotated[str, AfterValidator(check_revision)] | None = Field(
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
        if not _is_local(self.version):
            return ModelKind.HUB
        is_file = library_of(self.version) is not None or self.version.endswith(SUFFIXES)
        return ModelKind.FILE if is_file else ModelKind.DIRECTORY

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
        description="Of the pipeline's model: what its UNet predicts, `epsilon` or `v_prediction`. Without it, what "
        "the scheduler's configuration or a marker in a single file says, else `epsilon`; a single file of SD 2.x must "
        "say it, because nothing in it does.",
    )


def _check_lora_version(version: str) -> str:
    if version.startswith("builtin:"):
        raise PydanticCustomError(
            "model_version",
            "not a Hub id or a LoRA's file or folder",
            {"help": f"write `organisation/name`, or the path of a folder or of a {' or '.join(LORA_SUFFIXES)} file"},
        )
    return _check_version(version)


def _check_lora_file(file: str) -> str:
    parts = file.split("/")
    if file.endswith(LORA_SUFFIXES) and file.isprintable() and not any(part in ("", ".", "..") for part in parts):
        return file
    raise PydanticCustomError(
        "single_file", "not a LoRA's file", {"help": f"name a file that ends with {' or '.join(LORA_SUFFIXES)}"}
    )


class Lora(Reference):
    """A LoRA, added to the weights of the denoiser and the text encoders before they are converted."""

    version: Annotated[str, AfterValidator(_check_lora_version)] = Field(
        description="Where the LoRA is: a Hub id `organisation/name`; or a `.safetensors` file, a pickle or a folder "
        "that peft or diffusers saved, as a path that starts with `.`, `/` or `~`.",
        examples=["latent-consistency/lcm-lora-sdv1-5", "../loras/mine.safetensors"],
    )
    file: Annotated[str, AfterValidator(_check_lora_file)] | None = Field(
        default=None,
        description=f"For a Hub id: the LoRA's file in the repository. Without it, `{LORA_FILE}`.",
        examples=["pixel-art.safetensors"],
    )
    weight: float = Field(default=1.0, ge=-10, le=10, description="What the LoRA's difference is multiplied with.")

    @property
    def kind(self) -> ModelKind:
        """Hub, or local file or folder."""
        if not _is_local(self.version):
            return ModelKind.HUB
        is_file = library_of(self.version) is not None or self.version.endswith(LORA_SUFFIXES)
        return ModelKind.FILE if is_file else ModelKind.DIRECTORY

    @property
    def is_single_file(self) -> bool:
        """A LoRA is taken as a whole."""
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
    if file.endswith(EMBEDDING_SUFFIXES) and file.isprintable() and is_relative(file):
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
    second_file: Annotated[str, AfterValidator(_check_embedding_file)] | None = Field(
        default=None,
        description="For SDXL, where each text encoder's vectors have a file of their own: the name of the other file, "
        "in the same folder.",
        examples=["toy_clip_g.safetensors"],
    )
    token: Annotated[str, AfterValidator(_check_word)] | None = Field(
        default=None,
        description="The word to write in prompts, of ASCII letters, digits and signs; capitals make no difference. "
        "Without it, the one that the file names; of a LoRA that words travel with, it says which.",
        examples=["<cat-toy>"],
    )

    @property
    def kind(self) -> ModelKind:
        """Hub or local single file."""
        return ModelKind.FILE if _is_local(self.version) else ModelKind.HUB

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
