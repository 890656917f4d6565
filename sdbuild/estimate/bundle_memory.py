"""What a bundle's models need of a device's memory, and whether an app there may use that much.

Two sources give the same figures: a recipe with the checkpoint's configuration, before anything was built, and the
built programs themselves (`sdbuild.coreml.footprint`). What is done with the figures is one thing, and stands here.
docs/explanation/memory.md says why, and what was compared with published measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from sdbuild.checkpoints import adapter_kinds, architecture
from sdbuild.checkpoints.architecture import Needs, Shape
from sdbuild.checkpoints.facts import CheckpointFacts, known_facts
from sdbuild.components import CONDITIONERS, folder_of, network_of
from sdbuild.components.component import Component
from sdbuild.components.network import Phase
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.target import Target
from sdbuild.recipe.vocabulary import (
    CONTROLNET,
    T2I_ADAPTER,
    UNET_REFINER,
    AttentionImplementation,
    ComputeUnit,
)

RESERVE = 1_000_000_000
"""Bytes that an app needs beside its models: itself, the picture, Core ML's own. Nobody has published the figure; with
any from 0.9 to 1.3 GB each row of the tables in apple/ml-stable-diffusion's README comes out as it was measured."""

# Models of which one excludes the other: a pipeline with ControlNets or T2I-Adapters takes the UNet that knows them,
# and the refiner's UNet takes the base's place.
_UNET = "unet"


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """One part of a bundle while it is loaded: a model, or the two chunks of one.

    Attributes:
        part: a component, `controlled_unet`, `adapted_unet`, `controlnet-NAME` or `t2i_adapter-NAME`.
        weights: bytes of its weights in memory.
        activations: bytes of its inputs, outputs and results at the fullest moment.
    """

    part: str
    weights: int
    activations: int

    @property
    def bytes(self) -> int:
        """What it takes while it is loaded: Core ML keeps the room for results as long as the model."""
        return self.weights + self.activations


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What an app needs for a bundle on a target.

    Attributes:
        models: the parts.
        budget: bytes that one app may use there.
        reduce_memory: whether the app loads each model only while it is needed.
    """

    models: tuple[ModelMemory, ...]
    budget: int
    reduce_memory: bool

    @property
    def together(self) -> int:
        """Bytes with every model loaded, the reserve included."""
        return RESERVE + sum(_together(self.models))

    @property
    def one_at_a_time(self) -> int:
        """Bytes in the fullest phase when each model is loaded only while it is needed, the reserve included."""
        phases: dict[Phase, int] = {}
        for model in self.models:
            phase = _phase(model.part)
            if phase != Phase.DENOISING:
                phases[phase] = phases.get(phase, 0) + model.bytes
        denoising = [model for model in self.models if _phase(model.part) == Phase.DENOISING]
        return RESERVE + max([*phases.values(), sum(_together(denoising))])

    @property
    def needed(self) -> int:
        """Bytes in the way in which the app loads its models."""
        return self.one_at_a_time if self.reduce_memory else self.together

    @property
    def fits(self) -> bool:
        """Whether an app may use that much."""
        return self.needed <= self.budget


def _together(models: Iterable[ModelMemory]) -> Iterator[int]:
    """Bytes of the models that are loaded at the same time: of those that exclude each other the larger one."""
    groups: dict[str, int] = {}
    for model in models:
        group = CONDITIONERS.get(model.part.partition("-")[0], model.part)
        groups[group] = groups.get(group, 0) + model.bytes
    denoisers = (*CONDITIONERS.values(), _UNET, UNET_REFINER)
    yield max(groups.get(denoiser, 0) for denoiser in denoisers)
    yield from (size for group, size in groups.items() if group not in denoisers)


def _phase(part: str) -> Phase:
    """When an app needs a part that loads each model only while it needs it.

    The Swift package drops one group of models before it loads the next, `reduceMemory` given; T2I-Adapters are done
    before the first step.
    """
    return network_of(part).phase


def app_memory(target: Target) -> int:
    """Bytes that one app may use on the target."""
    return int(target.app_memory_gb * 2**30)


def summary(found: MemoryEstimate) -> dict[str, int | bool]:
    """The estimate as `bundle.json` says it."""
    return {
        "all_models": found.together,
        "one_at_a_time": found.one_at_a_time,
        "reserve": RESERVE,
        "reduce_memory": found.reduce_memory,
        "app_memory": found.budget,
        "fits": found.fits,
    }


def keeps_compressed(os_generation: int, compute_unit: str) -> bool:
    """Whether compressed weights stay compressed in memory.

    From iOS 17 and macOS 14 on the Neural Engine decompresses them as it computes; before that, and for other
    processors, they are written out when the model is loaded (README of apple/ml-stable-diffusion, Weight Compression).
    """
    return os_generation >= 17 and compute_unit == ComputeUnit.CPU_AND_NE


def estimate(recipe: Recipe, target: Target, facts: CheckpointFacts) -> MemoryEstimate:
    """The estimate before anything was built; what the checkpoint does not tell is left out: it is a lower bound then.

    Args:
        recipe: resolved for the target.
        target: the device.
        facts: the checkpoint; weights need not be there.
    """
    compute_unit = recipe.compute_unit or target.compute_unit
    compressed = keeps_compressed(target.os_generation, compute_unit)
    models = []
    for part, setting, needs in _parts(recipe, facts):
        if needs is not None:
            compression = recipe.compression(setting) if compressed else None
            plain = needs.parameters * (4 if recipe.precision_of(setting, facts.family) == "float32" else 2)
            weights = plain if compression is None else compression.stored_bytes(needs.parameters)
            models.append(ModelMemory(part, weights, needs.activations))
    return MemoryEstimate(tuple(models), app_memory(target), bool(recipe.reduce_memory))


def weight_counts(recipe: Recipe, facts: CheckpointFacts) -> dict[str, int]:
    """Part (`unet`, `controlnet-0`, …) → how many weights it has, as far as the checkpoint tells."""
    return {part: needs.parameters for part, _, needs in _parts(recipe, facts) if needs is not None}


def _parts(recipe: Recipe, facts: CheckpointFacts) -> Iterator[tuple[str, str, Needs | None]]:
    """Each part of the bundle, the recipe's name for its settings, and what it needs."""
    for component in recipe.components:
        yield component.value, component.value, _needs(component, recipe, facts)
    if recipe.refiner is not None:
        refiner = known_facts(recipe.refiner)
        config = refiner.unet_config if refiner is not None else {}
        shape = shape_of(recipe, UNET_REFINER, facts)
        chunked = architecture.if_known(architecture.unet_needs, config, shape, chunks=recipe.unet.chunks)
        yield UNET_REFINER, UNET_REFINER, chunked
    if recipe.controlnets:
        unet, shape = facts.unet_config, shape_of(recipe, Component.UNET, facts)
        residuals = architecture.if_known(
            architecture.unet_needs, unet, shape, residuals=True, chunks=recipe.unet.chunks
        )
        yield CONDITIONERS[CONTROLNET], _UNET, residuals
        shape = shape_of(recipe, CONTROLNET, facts)
        for index, _ in enumerate(recipe.controlnets):
            # A ControlNet is the first half of the UNet that it was trained for (Zhang et al. 2023).
            needs = architecture.if_known(architecture.controlnet_needs, {**unet, "in_channels": 4}, shape)
            yield f"{CONTROLNET}-{index}", CONTROLNET, needs
    if recipe.t2i_adapters:
        yield from _adapted_parts(recipe, facts)


def _adapted_parts(recipe: Recipe, facts: CheckpointFacts) -> Iterator[tuple[str, str, Needs | None]]:
    """The UNet that takes features, and the T2I-Adapters that give them."""
    unet, shape = facts.unet_config, shape_of(recipe, Component.UNET, facts)
    features = architecture.if_known(architecture.unet_needs, unet, shape, features=True, chunks=recipe.unet.chunks)
    yield CONDITIONERS[T2I_ADAPTER], _UNET, features
    shape = shape_of(recipe, T2I_ADAPTER, facts)
    for index, adapter in enumerate(recipe.t2i_adapters):
        config = adapter_kinds.published_config(adapter) or (adapter_kinds.likely_config(unet) if unet else {})
        yield f"{T2I_ADAPTER}-{index}", T2I_ADAPTER, architecture.if_known(adapter_kinds.needs, config, shape)


def _needs(component: Component, recipe: Recipe, facts: CheckpointFacts) -> Needs | None:
    folder, shape = folder_of(component), shape_of(recipe, component, facts)
    config = facts.config(folder)
    match component:
        case Component.TEXT_ENCODER | Component.TEXT_ENCODER_2:
            # In SDXL both have a projection in their configuration; only the second one's is part of the model.
            projection = component is Component.TEXT_ENCODER_2
            length = recipe.text_sequence_length
            needs = architecture.if_known(
                architecture.text_encoder_needs, config, length, shape.bytes, projection=projection
            )
        case Component.UNET:
            needs = architecture.if_known(architecture.unet_needs, config, shape, chunks=recipe.unet.chunks)
        case Component.VAE_DECODER:
            return architecture.if_known(architecture.decoder_needs, config, shape)
        case Component.VAE_ENCODER:
            return architecture.if_known(architecture.encoder_needs, config, shape)
        case Component.TEXT_ENCODER_3 | Component.TRANSFORMER | Component.SAFETY_CHECKER:
            # Of these the weights are counted, and nothing else is known.
            needs = None
        case _:
            assert_never(component)
    counted = facts.parameters(folder)
    if counted is None:
        return needs
    return Needs(counted, needs.activations if needs is not None else 0)


def shape_of(recipe: Recipe, setting: str, facts: CheckpointFacts) -> Shape:
    """What a part of the pipeline is built for."""
    return Shape(
        recipe.latent.height,
        recipe.latent.width,
        recipe.unet.batch,
        recipe.text_sequence_length,
        recipe.attention_implementation or AttentionImplementation.ORIGINAL,
        4 if recipe.precision_of(setting, facts.family) == "float32" else 2,
    )
