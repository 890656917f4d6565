"""Each model that the Swift package of ml-stable-diffusion loads, its inputs and its outputs, as data.

The letters are those of `sdbuild.interface.contract`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from sdbuild.interface.contract import Conditioners, Numbered, Port, Row, Size

PipelineKind = Literal["sd", "sdxl", "sd3"]

CONTROLNET, T2I_ADAPTER = "controlnet/", "t2i_adapter/"
CONDITIONERS = (
    Conditioners(CONTROLNET, "ControlledUnet", "additional_residual", "residuals", "controlnets", repeated=False),
    Conditioners(T2I_ADAPTER, "AdaptedUnet", "additional_feature", "features", "t2i_adapters", repeated=True),
)
CHUNKED = ("Unet", "ControlledUnet", "AdaptedUnet", "UnetRefiner")


def _text(width: str, hidden: str, pooled: Port) -> Row:
    return Row((Port("input_ids", (1, "L")),), (Port(hidden, (1, "L", width)), pooled), any_input=True)


_RESIDUALS, _FEATURES = Numbered("additional_residual", "inputs"), Numbered("additional_feature", "inputs")


def _denoiser(batch: Size, width: str, *extra: Port, numbered: Numbered | None = None, channels: int = 4) -> Row:
    latent = (batch, channels, "h", "w")
    states = Port("encoder_hidden_states", (batch, width, 1, "L"))
    inputs = (Port("sample", latent), Port("timestep", (batch,)), states, *extra)
    return Row(inputs, (Port("noise_pred", latent),), any_output=True, numbered=numbered)


def _xl_denoiser(width: str, time_ids: str) -> Row:
    return _denoiser(2, width, Port("text_embeds", (2, "P")), Port("time_ids", (2, time_ids)))


def _decoder(channels: int) -> Row:
    latent, image = Port("z", (1, channels, "h", "w")), Port("image", (1, 3, "H", "W"))
    return Row((latent,), (image,), any_input=True, any_output=True)


_ENCODER = Row((Port("x", (1, 3, "H", "W")),), (Port("latent", (1, 8, "h", "w")),), any_input=True, any_output=True)
_SAFETY_CHECKER = Row(
    (Port("clip_input", (1, 3, 224, 224)), Port("images", (1, 512, 512, 3)), Port("adjustment", (1,))),
    (Port("filtered_images", None), Port("has_nsfw_concepts", None), Port("concept_scores", None)),
)
_CONTROLNET_ROW = Row(
    (
        Port("sample", (2, 4, "h", "w")),
        Port("timestep", (2,)),
        Port("encoder_hidden_states", (2, "D", 1, "L")),
        Port("controlnet_cond", (2, 3, "H", "W")),
    ),
    (),
    numbered=Numbered("additional_residual", "outputs"),
)
_MULTILINGUAL = Row(
    (Port("nlcontextualembeddings_output", (1, 256, 512)),),
    (Port("encoder_hidden_states", (1, "D", 1, "L")),),
    any_input=True,
    any_output=True,
)
_T5 = Row(
    (Port("input_ids", (1, "N")), Port("attention_mask", (1, "N"))),
    (Port("encoder_hidden_states", (1, 4096, 1, "S")),),
)
_TRANSFORMER = Row(
    (
        Port("latent_image_embeddings", (2, 16, "h", "w")),
        Port("timestep", (2,)),
        Port("token_level_text_embeddings", (2, 4096, 1, 154)),
        Port("pooled_text_embeddings", (2, 2048, 1, 1)),
    ),
    (Port("denoiser_output", (2, 16, "h", "w")),),
    any_output=True,
)

ROWS: dict[PipelineKind, dict[str, Row]] = {
    "sd": {
        "TextEncoder": _text("D", "last_hidden_state", Port("pooled_outputs", None, optional=True)),
        "MultilingualTextEncoderProjection": _MULTILINGUAL,
        "Unet": _denoiser("B", "D"),
        "ControlledUnet": _denoiser(2, "D", numbered=_RESIDUALS),
        "VAEDecoder": _decoder(4),
        "VAEEncoder": _ENCODER,
        "SafetyChecker": _SAFETY_CHECKER,
    },
    "sdxl": {
        "TextEncoder": _text("D1", "hidden_embeds", Port("pooled_outputs", None, optional=True)),
        "TextEncoder2": _text("D2", "hidden_embeds", Port("pooled_outputs", (1, "P"))),
        "Unet": _xl_denoiser("X", "T"),
        "UnetRefiner": _xl_denoiser("XR", "TR"),
        "VAEDecoder": _decoder(4),
        "VAEEncoder": _ENCODER,
    },
    "sd3": {
        "TextEncoder": _text("D1", "hidden_embeds", Port("pooled_outputs", (1, "P1"))),
        "TextEncoder2": _text("D2", "hidden_embeds", Port("pooled_outputs", (1, "P"))),
        "TextEncoderT5": _T5,
        "MultiModalDiffusionTransformer": _TRANSFORMER,
        "VAEDecoder": _decoder(16),
    },
}
"""Pipeline → base name → interface."""

# Each alternative is enough: one of its models, whole or as a pair of chunks.
REQUIRED: dict[PipelineKind, tuple[tuple[str, ...], ...]] = {
    "sd": (("TextEncoder", "MultilingualTextEncoderProjection"), ("Unet", "ControlledUnet"), ("VAEDecoder",)),
    "sdxl": (("TextEncoder2",), ("Unet",), ("VAEDecoder",)),
    "sd3": (("TextEncoder",), ("TextEncoder2",), ("MultiModalDiffusionTransformer",), ("VAEDecoder",)),
}


EXTENSIONS: dict[str, str] = {
    "inpainting": "the UNet takes a mask and the masked picture's latents after the noisy latents: nine channels",
    "instruct-pix2pix": "the UNet takes the latents of the picture to edit after the noisy latents: eight channels",
    "sdxl-controlnet": "ControlNets for SDXL, and the UNet that takes their residuals, as the SD pipeline has them",
    "t2i-adapter": "T2I-Adapters, and the UNet that takes the weighted sum of their features",
    "guidance-embedding": "the UNet takes the embedded guidance scale as `timestep_cond`",
    "v-prediction": "the UNet gives the velocity, and the app's scheduler takes that",
    "zero-terminal-snr": "nothing of the picture is left at the last step, and the app's scheduler knows these betas",
    "noise-schedule": "the app's scheduler is made with the betas that `scheduler` says",
    "edm": "the app draws by sigmas of Karras et al. 2022, as `scheduler` says",
    "flow-matching": "the app draws by flow matching with a UNet",
    "flow-schedule": "the app's flow has the steps that `scheduler` says",
    "sample-prediction": "the UNet gives the picture, and the app's scheduler takes that",
    "latent-shift": "latents are shifted by `vae.shift_factor` before they are decoded",
}
"""What `bundle.json` may say that an app must feed or compute beyond what the Swift package does."""

_XL_CONDITIONS = (Port("text_embeds", (2, "P")), Port("time_ids", (2, "T")))
_XL_CONTROLNET = "sdxl-controlnet"
_XL_CONTROLNET_ROWS = {
    "ControlledUnet": _denoiser(2, "X", *_XL_CONDITIONS, numbered=_RESIDUALS),
    CONTROLNET: replace(
        _CONTROLNET_ROW,
        inputs=(
            *(port for port in _CONTROLNET_ROW.inputs if port.name != "encoder_hidden_states"),
            Port("encoder_hidden_states", (2, "X", 1, "L")),
            *_XL_CONDITIONS,
        ),
    ),
}

_T2I_ADAPTER = "t2i-adapter"
_T2I_ADAPTER_ROWS: dict[PipelineKind, dict[str, Row]] = {
    "sd": {"AdaptedUnet": _denoiser("B", "D", numbered=_FEATURES)},
    "sdxl": {"AdaptedUnet": _denoiser(2, "X", *_XL_CONDITIONS, numbered=_FEATURES)},
}
_T2I_ADAPTER_ROW = Row(
    (Port("adapter_cond", (1, (1, 3), "H", "W")),), (), numbered=Numbered("additional_feature", "outputs")
)

_CHANNELS = {"inpainting": 9, "instruct-pix2pix": 8}
_EXTENDED = ("Unet", "ControlledUnet", "AdaptedUnet")


def row_of(kind: PipelineKind, name: str, extensions: Collection[str] = ()) -> Row | None:
    """The interface of `Resources/<name>`; None for a model that the pipeline never loads.

    Args:
        kind: the pipeline.
        name: the model's path without suffix.
        extensions: what the bundle says that its app feeds besides, keys of `EXTENSIONS`.
    """
    folder = next((each.folder for each in CONDITIONERS if name.startswith(each.folder) and name.count("/") == 1), None)
    is_controlnet = folder == CONTROLNET
    if kind == "sd" and is_controlnet:
        return _CONTROLNET_ROW
    row = ROWS[kind].get(name)
    if kind in _T2I_ADAPTER_ROWS and _T2I_ADAPTER in extensions:
        if folder == T2I_ADAPTER:
            return _T2I_ADAPTER_ROW
        row = _T2I_ADAPTER_ROWS[kind].get(name, row)
    if kind == "sdxl" and _XL_CONTROLNET in extensions:
        row = _XL_CONTROLNET_ROWS.get(CONTROLNET if is_controlnet else name, row)
    return _extended(row, extensions) if row is not None and name in _EXTENDED else row


def _extended(row: Row, extensions: Collection[str]) -> Row:
    sample, *others = row.inputs
    for extension, channels in _CHANNELS.items():
        if extension in extensions and sample.shape is not None:
            batch, _, *size = sample.shape
            sample = replace(sample, shape=(batch, channels, *size))
    if "guidance-embedding" in extensions and sample.shape is not None:
        others.append(Port("timestep_cond", (sample.shape[0], "G")))
    return replace(row, inputs=(sample, *others))


def kind_of(names: set[str]) -> PipelineKind:
    """The pipeline that a bundle is for, by the models in it."""
    if "MultiModalDiffusionTransformer" in names:
        return "sd3"
    return "sdxl" if names & {"TextEncoder2", "UnetRefiner", "UnetRefinerChunk1", "UnetRefinerChunk2"} else "sd"
