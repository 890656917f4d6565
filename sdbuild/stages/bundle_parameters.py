"""What `bundle.json` says of a recipe and its target, and what the memory estimate needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY

from sdbuild.compression import Compression
from sdbuild.stages.parameters import parameters


@parameters
class CheckpointName:
    """A checkpoint as bundles name it, never by a path.

    Attributes:
        version: the Hub id, or the name of the user's own.
        revision: the Hub repository's.
        source: `hub`, `directory`, `file` or `builtin`.
        file: the single file of a Hub repository.
    """

    version: str
    revision: str | None
    source: str
    file: str | None = None


@parameters
class ConditionerName(CheckpointName):
    """A ControlNet or T2I-Adapter, and what the bundle calls it."""

    _: KW_ONLY
    name: str


@parameters
class FusedLora(CheckpointName):
    """A LoRA, and what it was multiplied with, as a decimal."""

    _: KW_ONLY
    weight: str


@parameters
class Size:
    """Rows and columns of the latent image."""

    height: int
    width: int


@parameters
class UnetShape:
    """How the UNet was built."""

    batch: int
    chunks: int


@parameters
class CompressedPart:
    """How one part's weights were made smaller: the method, and the output channels that share a table."""

    method: str
    group_size: int | None

    @classmethod
    def of(cls, compression: Compression | None) -> CompressedPart:
        """What is said of it; of weights that keep their precision, what was said when there was one method only."""
        return cls("palette", None) if compression is None else cls(compression.method, compression.group_size)


@parameters
class Device:
    """The target.

    Attributes:
        os_generation: the system's major version on iOS's scale.
        app_memory: bytes that one app may use.
        compute_unit: the processors that run the denoiser.
    """

    name: str
    device: str
    chip: str
    os: str
    os_version: str
    os_generation: int
    app_memory: int
    compute_unit: str


@parameters
class Parameters:
    """The bundle's; where a mapping has a key for each part, those are the parts of the bundle."""

    recipe: str
    model: CheckpointName
    components: tuple[str, ...]
    attention_implementation: str
    latent: Size
    text_sequence_length: int
    unet: UnetShape
    quantization: Mapping[str, int | None]
    compression: Mapping[str, CompressedPart]
    precision: Mapping[str, str]
    controlnets: tuple[ConditionerName, ...]
    refiner: CheckpointName | None
    vae_checkpoint: CheckpointName | None
    loras: tuple[FusedLora, ...]
    deployment_target: str
    target: Device
    reduce_memory: bool
    allowed_rules: tuple[str, ...]
    compiled: bool
    verified: bool
    t2i_adapters: tuple[ConditionerName, ...] = ()
    textual_inversions: tuple[CheckpointName, ...] = ()
    clip_skip: int | None = None
    denoiser_checkpoint: CheckpointName | None = None
