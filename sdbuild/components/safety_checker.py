"""The safety checker."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.components.network import Argument, FunctionName, Network, Phase

SAFETY_CHECKER = Network(
    name=Component.SAFETY_CHECKER.value,
    title="Tells whether a picture shows a concept that it should not.",
    folder="safety_checker",
    build=FunctionName("safety_checker:build_safety_checker"),
    original=FunctionName("originals:safety_checker"),
    arguments=frozenset({Argument.LATENT}),
    phase=Phase.CHECKING,
    # The Swift package feeds it a picture of 512 by 512, whatever it has drawn.
    latent_size=64,
    description="the safety checker",
)
