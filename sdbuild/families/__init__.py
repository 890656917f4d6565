"""Families of checkpoints, each one descriptor: how it is told, its networks, constants, limits, published checkpoints.

A checkpoint's family is decided once, by `of_checkpoint` or `of_single_file`, and carried as a `Family`. Where planning
must not look at files, `of_components` decides by the recipe's components. Nothing else guesses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sdbuild.components.component import Component
from sdbuild.families.family import Ability, Descriptor, Family, Layout, Sampling, TensorLayout
from sdbuild.families.refiner import REFINER
from sdbuild.families.sd1 import SD1
from sdbuild.families.sd2 import SD2
from sdbuild.families.sd3 import SD3
from sdbuild.families.sdxl import SDXL

__all__ = [
    "FAMILIES",
    "XL_FAMILIES",
    "Ability",
    "Family",
    "Sampling",
    "known_versions",
    "needs_float32",
    "of_checkpoint",
    "of_components",
    "of_single_file",
    "takes_penultimate",
]

FAMILIES: Mapping[Family, Descriptor] = {each.family: each for each in (SD1, SD2, SDXL, REFINER, SD3)}
"""Every family's descriptor."""

XL_FAMILIES = frozenset({Family.SDXL, Family.REFINER})
"""SDXL's base and its refiner, whose UNets know the picture's sizes and whose autoencoders are the same."""

if missing := [family for family in Family if family not in FAMILIES]:
    raise TypeError(f"sdbuild.families: nothing describes {', '.join(missing)}")


def of_checkpoint(layout: Layout) -> Family | None:
    """The family of a checkpoint in diffusers' layout; None where it is none of these."""
    return next((family for family, each in FAMILIES.items() if each.matches(layout)), None)


def of_single_file(tensors: TensorLayout) -> Family | None:
    """The family of a single-file checkpoint; None where it is none of these."""
    found = (family for family, each in FAMILIES.items() if each.single_file and each.single_file.matches(tensors))
    return next(found, None)


def of_components(components: Collection[str]) -> Family | None:
    """The family that a recipe's components, or any set of text encoders and denoisers, are for.

    None for SD 1.x and SD 2.x, whose components are the same; nothing that goes by this function differs between them.
    """
    if Component.TRANSFORMER in components or Component.TEXT_ENCODER_3 in components:
        return Family.SD3
    if Component.TEXT_ENCODER_2 not in components:
        return None
    return Family.SDXL if Component.TEXT_ENCODER in components else Family.REFINER


def needs_float32(component: str, family: Family | None) -> bool:
    """Whether a network is float32 unless a recipe says otherwise; of an undecided family, what all with it say."""
    having = [each for each in _described(family) if component in each.components]
    return bool(having) and all(each.needs_float32(component) for each in having)


def takes_penultimate(component: str, family: Family | None) -> bool:
    """Whether the denoiser attends to a text encoder's hidden states before the last layer.

    Of an undecided family, what all that have the encoder say.
    """
    found = [encoder for each in _described(family) if (encoder := each.text_encoder(component)) is not None]
    return bool(found) and all(encoder.penultimate for encoder in found)


def _described(family: Family | None) -> Collection[Descriptor]:
    return FAMILIES.values() if family is None else (FAMILIES[family],)


def known_versions() -> dict[str, Family]:
    """Published checkpoint → its family."""
    return {version: family for family, each in FAMILIES.items() for version in each.published.versions}
