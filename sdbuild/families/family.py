"""What is said of a family: the types of its descriptor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any, Literal

from sdbuild.components.component import Component

Config = Mapping[str, Any]
Configs = Mapping[str, Config]
"""Folder of a pipeline in diffusers' layout → its configuration."""


PIXELS = 8
"""Rows and columns of a picture for each of its latent image: the same in every autoencoder of these families."""


class Family(StrEnum):
    """A family of checkpoints: the same networks behind the same interface."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    REFINER = "sdxl-refiner"
    SD3 = "sd3"


class Ability(Enum):
    """What a family's pipeline can be asked for."""

    CONTROLNETS = auto()
    T2I_ADAPTERS = auto()
    TEXTUAL_INVERSIONS = auto()
    MULTILINGUAL_PROJECTION = auto()
    REFINER = auto()
    SAFETY_CHECKER = auto()
    IMAGE_TO_IMAGE = auto()
    UNGUIDED = auto()
    """A denoiser of batch 1, which draws without guidance."""
    NEURAL_ENGINE = auto()


class Sampling(Enum):
    """How pictures are drawn: by reversing diffusion (Ho et al. 2020), or along a flow (Esser et al. 2024)."""

    DIFFUSION = "diffusion"
    FLOW = "flow"


@dataclass(frozen=True)
class Layout:
    """What the JSON files of a checkpoint in diffusers' layout say.

    Attributes:
        pipeline: the pipeline's class; empty where `model_index.json` is not at hand.
        configs: each folder that is there, with its configuration, empty where it is not at hand.
        classes: the class that the checkpoint names for a folder.
    """

    pipeline: str
    configs: Configs
    classes: Mapping[str, str]

    def config(self, folder: str) -> Config:
        """A folder's configuration; empty where there is none."""
        return self.configs.get(folder, {})


@dataclass(frozen=True)
class TensorLayout:
    """What the tensors of a single-file checkpoint say.

    Attributes:
        has_size_condition: whether the UNet is told sizes beside the text.
        linear_projections: whether its transformers begin with matrices instead of convolutions.
        text_width: the width of the text that it attends to.
        encoders: what the names of the text encoders' tensors start with.
    """

    has_size_condition: bool
    linear_projections: bool
    text_width: int
    encoders: frozenset[str]


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder in a family's pipeline.

    Attributes:
        component: which.
        penultimate: whether the denoiser attends to the hidden states before the last layer, not after it.
        required: whether the pipeline cannot do without it.
    """

    component: Component
    penultimate: bool = False
    required: bool = True


@dataclass(frozen=True)
class Autoencoder:
    """The latent space.

    Attributes:
        scaling_factor: latents are multiplied by it after encoding, where a configuration does not say.
        shift_factor: what is taken off latents before that.
        channels: of a latent.
        overflows: whether half precision is not enough, so that it is float32 unless a recipe says otherwise.
    """

    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    channels: int = 4
    overflows: bool = False


@dataclass(frozen=True)
class SingleFile:
    """What no shape in a single-file checkpoint tells.

    Attributes:
        matches: whether the tensors are this family's.
        index: `model_index.json` but for the components.
        scheduler: `scheduler_config.json` but for what all have and what the network predicts.
        heads: attention heads of every level of the UNet; None for heads of 64 channels.
        predictions: whether checkpoints of the family were published that predict velocity, so that no tensor tells.
    """

    matches: Callable[[TensorLayout], bool]
    index: Config
    scheduler: Config
    heads: int | None = None
    predictions: bool = False


@dataclass(frozen=True)
class Published:
    """What is known of published checkpoints before any of their files is here.

    Attributes:
        configs: what preflight rules and the memory estimate read of each folder's `config.json`.
        versions: checkpoint → what differs in its folders' configurations.
        parameters: checkpoint → how many numbers the weights of a folder hold, where the configuration does not tell.
    """

    configs: Configs
    versions: Mapping[str, Configs] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A family.

    Attributes:
        family: which.
        title: what people call it.
        matches: whether a checkpoint in diffusers' layout is of it, by what its networks are, never by its name.
        denoiser: the network that draws.
        text_encoders: in the order in which the denoiser takes their states.
        text_encoders_of: the family whose text encoders these are, where another has the same: so both share artifacts.
        autoencoder: the latent space.
        sampling: how pictures are drawn.
        time_ids: numbers beside the text in an XL UNet's condition; 0 for all others.
        sample_size: rows and columns of the latents that it was trained on.
        divisor: configurations → what latent heights and widths are multiples of.
        abilities: what its pipeline can be asked for.
        upcast: networks that are float32 unless a recipe says otherwise, beside the autoencoder.
        minimum_generation: the oldest generation of iOS whose client draws it.
        pipeline: the client's pipeline, a key of `sdbuild.interface.swift.rows.ROWS`.
        guidance_scale: what diffusers' pipeline is called with when nobody says otherwise.
        force_zeros_for_empty_prompt: whether an empty negative prompt is zeros, where `model_index.json` does not say.
        single_file: how single-file checkpoints of it look; None where none is read.
        published: what is known before any file is here.
    """

    family: Family
    title: str
    matches: Callable[[Layout], bool]
    denoiser: Component
    text_encoders: tuple[TextEncoder, ...]
    text_encoders_of: Family | None = None
    autoencoder: Autoencoder
    sampling: Sampling = Sampling.DIFFUSION
    time_ids: int = 0
    sample_size: int
    divisor: Callable[[Configs], int]
    abilities: frozenset[Ability]
    upcast: frozenset[Component] = frozenset()
    minimum_generation: int = 16
    pipeline: Literal["sd", "sdxl", "sd3"]
    guidance_scale: float
    force_zeros_for_empty_prompt: bool = False
    single_file: SingleFile | None = None
    published: Published

    def can(self, ability: Ability) -> bool:
        """Whether its pipeline can be asked for it."""
        return ability in self.abilities

    def text_encoder(self, component: str) -> TextEncoder | None:
        """What a text encoder means here; None where the pipeline has none of that name."""
        return next((each for each in self.text_encoders if each.component == component), None)

    @property
    def components(self) -> frozenset[Component]:
        """The networks of its pipeline, but for the safety checker."""
        encoders = (each.component for each in self.text_encoders)
        return frozenset({*encoders, self.denoiser, Component.VAE_DECODER, Component.VAE_ENCODER})

    def needs_float32(self, component: str) -> bool:
        """Whether a network is float32 unless a recipe says otherwise."""
        is_vae = component in (Component.VAE_DECODER, Component.VAE_ENCODER)
        return component in self.upcast or (is_vae and self.autoencoder.overflows)

    @property
    def required(self) -> tuple[Component, ...]:
        """The components that its pipeline cannot do without."""
        encoders = (each.component for each in self.text_encoders if each.required)
        return (*encoders, self.denoiser, Component.VAE_DECODER)
