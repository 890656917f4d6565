"""Networks that stand beside a pipeline's own: each from a checkpoint or file of its own."""

from __future__ import annotations

from sdbuild.components.network import Argument, FunctionName, Network, Phase

CONTROLNET = Network(
    name="controlnet",
    title="Turns a picture that controls the drawing into residuals for the denoiser.",
    folder="",
    build=FunctionName("controlnet:build_controlnet"),
    original=FunctionName("originals:controlnet"),
    arguments=frozenset({Argument.LATENT, Argument.TEXT, Argument.BATCH}),
    phase=Phase.DENOISING,
    description="every ControlNet",
    package="ControlNet",
    feeds="controlled_unet",
)
T2I_ADAPTER = Network(
    name="t2i_adapter",
    title="Turns a picture that controls the drawing into features for the denoiser, once for all steps.",
    folder="",
    build=FunctionName("t2i_adapter:build_t2i_adapter"),
    original=FunctionName("originals:t2i_adapter"),
    arguments=frozenset({Argument.LATENT, Argument.FAMILY}),
    phase=Phase.ADAPTING,
    description="every T2I-Adapter",
    package="T2IAdapter",
    feeds="adapted_unet",
)
MULTILINGUAL_PROJECTION = Network(
    name="multilingual_projection",
    title="Turns contextual embeddings of a text in many languages into a denoiser's text states.",
    folder=None,
    build=FunctionName("multilingual:build_multilingual_projection"),
    original=FunctionName("originals:multilingual_projection"),
    arguments=frozenset(),
    phase=Phase.TEXT,
)
