"""What the registration of a network says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NewType


class Phase(Enum):
    """When an app that loads each model only while it needs it has a network in memory."""

    TEXT = "text"
    PICTURE = "picture"
    ADAPTING = "adapting"
    DENOISING = "denoising"
    DECODING = "decoding"
    CHECKING = "checking"


class Argument(Enum):
    """What fixes a network's inputs and outputs besides its own configuration."""

    TEXT = "text"
    """`text_sequence_length`."""
    LATENT = "latent"
    """`latent_height` and `latent_width`."""
    BATCH = "batch"
    """`batch`, and `attention_implementation`: the network denoises, or is half of one that does."""
    FAMILY = "family"
    """`family`: the network's own files do not say which pipeline it is for, and its outputs depend on that."""


FunctionName = NewType("FunctionName", str)
"""A function of `sdbuild.models` by module and name, `unet:build_unet`: imported when it is called, as it needs torch.

`sdbuild.models.registry` does that.
"""


@dataclass(frozen=True)
class Variant:
    """A network under another name in a bundle: fed more, or with the weights of another checkpoint.

    Attributes:
        name: the part of a bundle.
        flag: the argument of the network's `build` that makes it; None where its weights alone differ.
        setting: what a recipe's settings for it are called where it has its own; None for those of the network.
        description: what documentation calls it, with its article; only with a setting of its own.
    """

    name: str
    flag: str | None = None
    setting: str | None = None
    description: str = ""


@dataclass(frozen=True)
class Network:
    """A network that a bundle can hold.

    Attributes:
        name: what recipes, tasks and stages call it.
        title: one sentence for the model's metadata.
        folder: where a checkpoint of diffusers' layout has its files; "" for a repository of its own, None for a
            network that is no part of such checkpoints.
        build: `(name, checkpoint, arguments)` → `sdbuild.models.component.ComponentModel`, without weights.
        original: `(name, checkpoint, arguments)` → `sdbuild.models.original.Original`, what others made it with.
        arguments: what its interface depends on.
        phase: when an app needs it.
        description: what the documentation of settings calls it, with its article; empty where it has none.
        tokenizer: the folder with the tokenizer that makes its inputs; for text encoders.
        package: the file name, without suffix, of a package of which a bundle has any number, each under its own name.
        feeds: the variant of the denoiser that takes what it gives.
        batch: how many samples its client always feeds; None for as many as the recipe says.
        latent_size: rows and columns of the latent image that its client always feeds it the picture of; None for the
            recipe's.
        time_steps: `(scheduler configuration, count)` → the time steps of realistic inputs.
        text_states: `(inputs, arguments, configuration)` → the text states of realistic inputs, and the pooled ones.
        variants: the same network under other names.
    """

    name: str
    title: str
    folder: str | None
    build: FunctionName
    original: FunctionName
    arguments: frozenset[Argument]
    phase: Phase
    description: str = ""
    tokenizer: str | None = None
    package: str | None = None
    feeds: str | None = None
    batch: int | None = None
    latent_size: int | None = None
    time_steps: FunctionName = FunctionName("samples:diffusion_timesteps")
    text_states: FunctionName = FunctionName("scene:clip_states")
    variants: tuple[Variant, ...] = ()

    @property
    def denoises(self) -> bool:
        """Whether it is a denoiser, or half of one: what attention implementations and batches are for."""
        return Argument.BATCH in self.arguments

    def variant(self, flags: Mapping[str, Any]) -> str:
        """The name in a bundle of what `build` makes with these arguments, a mapping."""
        return next((each.name for each in self.variants if each.flag and flags.get(each.flag)), self.name)
