"""Each network is registered with what every room asks for, and nothing of it is heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sdbuild.components import CONDITIONERS, NETWORKS, VARIANTS, folder_of, network_of, settings
from sdbuild.components.component import Component
from sdbuild.interface.swift.files import base_name
from sdbuild.models.registry import function


@pytest.mark.parametrize("name", NETWORKS)
def test_every_function_that_a_network_is_registered_with_is_there(name: str) -> None:
    network = NETWORKS[name]
    for each in (network.build, network.original, network.time_steps, network.text_states):
        assert callable(function(each))


@pytest.mark.parametrize("part", [*NETWORKS, *VARIANTS])
def test_every_part_of_a_bundle_has_a_name_there(part: str) -> None:
    named = f"{part}-Name" if part in CONDITIONERS else part
    assert base_name(named)
    assert network_of(named) in NETWORKS.values()


def test_what_takes_a_conditioners_results_is_a_variant_with_a_flag() -> None:
    for unet in CONDITIONERS.values():
        network, variant = VARIANTS[unet]
        assert network.variant({variant.flag: True}) == unet
        assert network.variant({variant.flag: False}) == network.name


def test_both_halves_of_the_vae_share_a_folder() -> None:
    assert folder_of(Component.VAE_DECODER) == folder_of(Component.VAE_ENCODER) == "vae"


def test_every_component_has_settings_of_its_own() -> None:
    assert {*Component, "unet_refiner", "controlnet", "t2i_adapter"} == {*settings()}


@pytest.mark.parametrize("module", ["sdbuild.components", "sdbuild.families", "sdbuild.interface.swift.rows"])
def test_registries_are_read_without_heavy_libraries(module: str) -> None:
    heavy = ("torch", "diffusers", "transformers", "coremltools", "numpy")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
