"""The networks of a bundle, each registered once: titles, folders, settings, how to build it, what it is compared with.

Nothing here imports torch: functions of heavy rooms are named and imported when they are called.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdbuild.components.additions import CONTROLNET, MULTILINGUAL_PROJECTION, T2I_ADAPTER
from sdbuild.components.autoencoder import VAE_DECODER, VAE_ENCODER
from sdbuild.components.component import Component
from sdbuild.components.denoisers import TRANSFORMER, UNET
from sdbuild.components.network import Network, Variant
from sdbuild.components.safety_checker import SAFETY_CHECKER
from sdbuild.components.text_encoders import TEXT_ENCODER, TEXT_ENCODER_2, TEXT_ENCODER_3

_COMPONENTS: tuple[Network, ...] = (
    *(TEXT_ENCODER, TEXT_ENCODER_2, TEXT_ENCODER_3, UNET, TRANSFORMER),
    *(VAE_DECODER, VAE_ENCODER, SAFETY_CHECKER),
)

NETWORKS: Mapping[str, Network] = {
    network.name: network for network in (*_COMPONENTS, MULTILINGUAL_PROJECTION, CONTROLNET, T2I_ADAPTER)
}
"""Every network by name: a pipeline's components in the order of `Component`, then what a recipe adds."""

if missing := [component for component in Component if component not in NETWORKS]:
    raise TypeError(f"sdbuild.components: nothing is registered for {', '.join(missing)}")

VARIANTS: Mapping[str, tuple[Network, Variant]] = {
    variant.name: (network, variant) for network in NETWORKS.values() for variant in network.variants
}
"""A network's other names in bundles → the network, and what differs."""

TOKENIZERS: Mapping[str, str] = {
    network.name: network.tokenizer for network in NETWORKS.values() if network.tokenizer is not None
}
"""Text encoder → the tokenizer that makes its inputs."""

CONDITIONERS: Mapping[str, str] = {
    network.name: network.feeds for network in NETWORKS.values() if network.feeds is not None
}
"""Networks of which a bundle has any number → the part that takes what they give."""

PIPELINE_FOLDERS: tuple[str, ...] = tuple(
    dict.fromkeys(network.folder for network in _COMPONENTS if network.folder is not None)
)
"""The folders of a checkpoint in diffusers' layout that hold networks."""


def folder_of(component: Component) -> str:
    """The folder of a diffusers pipeline that holds a component's configuration and weights."""
    folder = NETWORKS[component].folder
    assert folder is not None
    return folder


def settings() -> dict[str, str]:
    """The parts of a pipeline that have bits, precision and gates of their own → what documentation calls them."""
    found = {}
    for network in NETWORKS.values():
        if network.description:
            found[network.name] = network.description
        found |= {variant.setting: variant.description for variant in network.variants if variant.setting}
    return found


def network_of(part: str) -> Network:
    """The network of a bundle's part: a component, a variant, or a conditioner with its name (`controlnet-NAME`).

    Raises:
        KeyError: there is no such part.
    """
    if part in VARIANTS:
        return VARIANTS[part][0]
    kind = part.partition("-")[0]
    return NETWORKS[kind if kind in CONDITIONERS else part]
