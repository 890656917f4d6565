"""What a plan says of a bundle, for `bundle.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sdbuild.estimate.bundle_memory import app_memory
from sdbuild.interface.swift.files import conditioner_name
from sdbuild.plan.bundle_part import Part
from sdbuild.plan.numbers import decimal
from sdbuild.plan.sources import Source
from sdbuild.recipe.vocabulary import Precision
from sdbuild.stages import bundle_parameters as bundle

if TYPE_CHECKING:
    from sdbuild.plan.draft import TargetPlan


def bundle_parameters(
    plan: TargetPlan, parts: Sequence[Part], precisions: Mapping[str, Precision], attention_implementation: str
) -> bundle.Parameters:
    """What `bundle.json` says of recipe and target: not the description, so that editing it builds nothing.

    Args:
        plan: the bundle's.
        parts: what the bundle holds.
        precisions: part → the precision that it is built in.
        attention_implementation: how attention is written in the denoisers.
    """
    recipe, target = plan.recipe, plan.target
    compressions = {part.name: recipe.compression(part.setting) for part in parts}
    return bundle.Parameters(
        recipe=recipe.name,
        model=_described(plan.model),
        components=tuple(component.value for component in recipe.components),
        attention_implementation=attention_implementation,
        latent=bundle.Size(recipe.latent.height, recipe.latent.width),
        text_sequence_length=recipe.text_sequence_length,
        unet=bundle.UnetShape(recipe.unet.batch, recipe.unet.chunks),
        quantization={name: None if found is None else found.bits for name, found in compressions.items()},
        compression={name: bundle.CompressedPart.of(found) for name, found in compressions.items()},
        precision=dict(precisions),
        controlnets=_named(plan.controlnets),
        refiner=None if plan.refiner is None else _described(plan.refiner),
        vae_checkpoint=None if plan.vae is None else _described(plan.vae),
        loras=tuple(
            bundle.FusedLora(**vars(_described(source)), weight=decimal(weight)) for source, weight in plan.loras
        ),
        deployment_target=recipe.deployment_target,
        target=bundle.Device(
            name=target.name,
            device=target.device,
            chip=target.chip,
            os=target.os,
            os_version=target.os_version,
            os_generation=target.os_generation,
            app_memory=app_memory(target),
            compute_unit=(recipe.compute_unit or target.compute_unit).value,
        ),
        reduce_memory=bool(recipe.reduce_memory),
        allowed_rules=tuple(sorted(recipe.allow)),
        compiled=plan.compiler is not None,
        verified=plan.verify,
        t2i_adapters=_named(plan.t2i_adapters),
        textual_inversions=tuple(_described(source) for source, _ in plan.textual_inversions),
        clip_skip=recipe.clip_skip or None,
        denoiser_checkpoint=None if plan.denoiser is None else _described(plan.denoiser),
    )


def _named(sources: tuple[Source, ...]) -> tuple[bundle.ConditionerName, ...]:
    """ControlNets or T2I-Adapters as `bundle.json` names them."""
    return tuple(
        bundle.ConditionerName(**vars(_described(source)), name=conditioner_name(source.label)) for source in sources
    )


def _described(source: Source) -> bundle.CheckpointName:
    """A checkpoint as `bundle.json` names it."""
    return bundle.CheckpointName(source.label, source.revision, source.kind, source.file)
