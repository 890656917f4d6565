"""What a single-file checkpoint is, told by its tensors' names and shapes: family, components, their configurations.

Such a file has the layout of the original code of Latent Diffusion (Rombach et al. 2022), in which the UNet's tensors
are called `model.diffusion_model.…`, the autoencoder's `first_stage_model.…` and the text encoders'
`cond_stage_model.…` or, for SDXL, `conditioner.embedders.N.…`. Sizes are read from the shapes; what no shape tells
(heads, activations, schedules) are the published figures of the family, below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

from sdbuild.checkpoints.markers import Markers, PredictionType
from sdbuild.errors import SdbuildError
from sdbuild.families import FAMILIES, Family, of_single_file
from sdbuild.families.family import PIXELS, TensorLayout
from sdbuild.families.family import SingleFile as Said

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP, OPEN_CLIP = "clip", "open_clip"
# The text encoders' prefixes: folder in diffusers' layout, and whose code wrote the tensors' names.
_ENCODERS: Mapping[str, tuple[str, str]] = {
    "cond_stage_model.transformer.": ("text_encoder", CLIP),
    "cond_stage_model.model.": ("text_encoder", OPEN_CLIP),
    "conditioner.embedders.0.transformer.": ("text_encoder", CLIP),
    "conditioner.embedders.0.model.": ("text_encoder_2", OPEN_CLIP),
    "conditioner.embedders.1.model.": ("text_encoder_2", OPEN_CLIP),
}
PREFIXES = (UNET, VAE, *_ENCODERS)
"""What the names of a checkpoint's own tensors start with; all others (averages, losses, schedules) are not read."""

NOT_PARAMETERS = ("position_ids", "logit_scale", "attn_mask")
"""How names end that stand among a component's tensors and are no parameters of it."""

_TRAINING = ("loss.",)

# How wide OpenCLIP's pooled state is, for a file without text encoders.
_POOLED_WIDTH = 1280
_HEAD_WIDTH = 64

_SCHEDULE: Config = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "trained_betas": None,
}
_CLASSES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
}


_NO_MARKERS = Markers()

T = TypeVar("T")


def inside(tensors: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The parameters of one component, under their names in it."""
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {n: tensor for n, tensor in found.items() if not n.endswith(NOT_PARAMETERS) and not n.startswith(_TRAINING)}


class SingleFileError(SdbuildError):
    """A single-file checkpoint is of no family that is known here."""

    exit_status = 2


@dataclass(frozen=True)
class Folder:
    """One component of a single-file checkpoint.

    Attributes:
        prefix: what the names of its tensors start with.
        config: its `config.json` in diffusers' layout.
        parameters: how many numbers its tensors hold.
        dialect: for text encoders, whose names they have: `CLIP` (transformers) or `OPEN_CLIP`.
    """

    prefix: str
    config: Config
    parameters: int
    dialect: str = ""


@dataclass(frozen=True)
class SingleFile:
    """What a single-file checkpoint holds.

    Attributes:
        family: by the networks' names and shapes, never by the file's.
        folders: folder in diffusers' layout → the component.
        prediction_type: what the UNet predicts; None where nothing tells it (SD 2.x was trained both ways).
        schedule: settings of the scheduler that the file's markers fix.
    """

    family: Family
    folders: Mapping[str, Folder]
    prediction_type: PredictionType | None
    schedule: Mapping[str, Any] = field(default_factory=dict)

    @property
    def index(self) -> Config:
        """The `model_index.json` of the same pipeline in diffusers' layout."""
        return {**_said(self.family).index} | {name: _CLASSES[name] for name in self.folders}

    @property
    def scheduler(self) -> Config:
        """The `scheduler_config.json` of the same pipeline in diffusers' layout."""
        prediction = {"prediction_type": self.prediction_type or "epsilon"}
        if "sigma_data" in self.schedule:  # a schedule over sigmas has no betas
            return {"num_train_timesteps": _SCHEDULE["num_train_timesteps"], **self.schedule, **prediction}
        return {**_SCHEDULE, **_said(self.family).scheduler, **self.schedule, **prediction}


def _said(family: Family) -> Said:
    said = FAMILIES[family].single_file
    assert said is not None
    return said


def describe(
    shapes: Shapes, prediction_type: PredictionType | None = None, markers: Markers = _NO_MARKERS
) -> SingleFile:
    """Tell a checkpoint's family and configurations.

    Args:
        shapes: every tensor's name and shape.
        prediction_type: what the recipe says about it; it overrules what the file does.
        markers: what the file says beside its weights.

    Raises:
        SingleFileError: there is no UNet in that layout, or it is none of the known families'.
    """
    if f"{UNET}input_blocks.0.0.weight" not in shapes:
        found = ", ".join(sorted({name.partition(".")[0] for name in shapes})[:8]) or "nothing"
        raise SingleFileError(
            f"no UNet in the layout of the original code ({UNET}input_blocks…); its names start with: {found}. "
            "Give a whole checkpoint of SD 1.x, SD 2.x or SDXL."
        )
    try:
        return _describe(shapes, prediction_type, markers)
    except (KeyError, ValueError, IndexError) as error:
        raise SingleFileError(
            f"a tensor is missing or has another shape than in any known family ({error!r}). Download the file again, "
            "or give the model in diffusers' layout."
        ) from error


def _describe(shapes: Shapes, prediction_type: PredictionType | None, markers: Markers) -> SingleFile:
    unet = inside(shapes, UNET)
    prefixes = [prefix for prefix in _ENCODERS if any(name.startswith(prefix) for name in shapes)]
    family = _family(unet, prefixes)
    folders: dict[str, Folder] = {}
    for prefix in prefixes:
        name, dialect = _ENCODERS[prefix]
        held = inside(shapes, prefix)
        config = _clip_config(held) if dialect == CLIP else _open_clip_config(held, family)
        folders[name] = Folder(prefix, config, _count(held), dialect)
    pooled = folders["text_encoder_2"].config["projection_dim"] if "text_encoder_2" in folders else _POOLED_WIDTH
    folders["unet"] = Folder(UNET, _unet_config(unet, family, pooled), _count(unet))
    if vae := inside(shapes, VAE):
        folders["vae"] = Folder(VAE, vae_config(vae, family) | dict(markers.vae), _count(vae))
    told = prediction_type or markers.prediction_type or (None if _said(family).predictions else "epsilon")
    return SingleFile(family, folders, told, markers.scheduler)


def _family(unet: Shapes, encoders: list[str]) -> Family:
    conditioned = "label_emb.0.0.weight" in unet
    if not conditioned and any(name.startswith("label_emb") for name in unet):
        raise SingleFileError("its UNet is conditioned on a class or a noise level; no pipeline here gives it one.")
    linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in unet.items())
    family = of_single_file(TensorLayout(conditioned, linear, _context_width(unet), frozenset(encoders)))
    if family is None:
        raise SingleFileError("its networks are those of no family that is known here.")
    return family


def _context_width(unet: Shapes) -> int:
    for name, shape in unet.items():
        if name.endswith("transformer_blocks.0.attn2.to_k.weight"):
            return shape[1]
    raise SingleFileError("its UNet has no cross-attention: it is not steered by text.")


def _unet_config(unet: Shapes, family: Family, pooled: int) -> Config:
    levels = _levels(unet)
    channels = [width for width, _, _ in levels]
    attends = [depth > 0 for _, _, depth in levels]
    middle = _depth(unet, "middle_block.1.")
    depths = [depth or 1 for _, _, depth in levels]
    if not attends[-1]:
        depths[-1] = middle or 1
    sizes = {count for _, count, _ in levels}
    is_plain = middle == 0 and not any(name.startswith(("middle_block.1.", "middle_block.2.")) for name in unet)
    if len(sizes) != 1 or not (depths[-1] == middle or is_plain):
        raise SingleFileError(
            "its UNet's blocks are not those of SD 1.x, SD 2.x or SDXL (levels of different lengths, or a middle "
            "unlike the last level). Give the model in diffusers' layout, whose config.json says how it is built."
        )
    config: Config = {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": _said(family).heads or [width // _HEAD_WIDTH for width in channels],
        "block_out_channels": channels,
        "center_input_sample": False,
        "cross_attention_dim": _context_width(unet),
        "down_block_types": ["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": unet["input_blocks.0.0.weight"][1],
        "layers_per_block": sizes.pop(),
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": unet["out.2.weight"][0],
        "sample_size": FAMILIES[family].sample_size,
        "transformer_layers_per_block": depths if max(depths) > 1 else 1,
        "up_block_types": ["CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attends)],
        "use_linear_projection": _said(family).heads is None,
    }
    upwards = _upward_depths(unet, config["layers_per_block"] + 1, list(reversed(attends)))
    usual = [depth if attended else 1 for depth, attended in zip(depths, attends, strict=True)]
    if upwards != [[depth] * (config["layers_per_block"] + 1) for depth in reversed(usual)]:
        config["reverse_transformer_layers_per_block"] = upwards
    if is_plain:
        config["mid_block_type"] = "UNetMidBlock2D"
    if "time_embed.cond_proj.weight" in unet:
        config["time_cond_proj_dim"] = unet["time_embed.cond_proj.weight"][1]
    if time_ids := FAMILIES[family].time_ids:
        condition = unet["label_emb.0.0.weight"][1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (condition - pooled) // time_ids,
            "projection_class_embeddings_input_dim": condition,
        }
    return config


def _upward_depths(unet: Shapes, count: int, attends: list[bool]) -> list[list[int]]:
    """Transformer layers of each block on the way up, level by level from the deepest; 1 where there are none.

    They are those of the way down but in distilled models: SSD-1B and Vega (Gupta et al. 2024) have fewer here and
    there, and one residual block for a middle.
    """
    found = []
    for level, attended in enumerate(attends):
        depths = [_depth(unet, f"output_blocks.{level * count + index}.1.") for index in range(count)]
        if attended != all(depths) or (not attended and any(depths)):
            raise SingleFileError("a level of its UNet attends in some blocks alone; no published family does.")
        found.append([depth or 1 for depth in depths])
    return found


def _levels(unet: Shapes) -> list[tuple[int, int, int]]:
    """Of each level of the UNet: channels, number of residual blocks, transformer layers after each of them."""
    count = 1 + max(int(match[1]) for name in unet if (match := re.match(r"input_blocks\.(\d+)\.", name)))
    levels: list[tuple[int, int, int]] = []
    widths: list[int] = []
    depths: set[int] = set()
    for number in range(1, count + 1):
        if number == count or f"input_blocks.{number}.0.op.weight" in unet:
            if len({*widths}) != 1 or len(depths) != 1:
                raise SingleFileError("a level of its UNet has blocks that differ; no published family does.")
            levels.append((widths[0], len(widths), depths.pop()))
            widths = []
        else:
            widths.append(unet[f"input_blocks.{number}.0.out_layers.3.weight"][0])
            depths.add(_depth(unet, f"input_blocks.{number}.1."))
    return levels


def _depth(unet: Shapes, prefix: str) -> int:
    """How many transformer layers a block has."""
    pattern = re.compile(re.escape(prefix) + r"transformer_blocks\.(\d+)\.")
    return len({match[1] for name in unet if (match := pattern.match(name))})


def vae_config(vae: Shapes, family: Family) -> Config:
    """The configuration of an autoencoder in the original layout, names without any prefix."""
    autoencoder = FAMILIES[family].autoencoder
    levels = 1 + max(int(match[1]) for name in vae if (match := re.match(r"encoder\.down\.(\d+)\.", name)))
    layers = len({match[1] for name in vae if (match := re.match(r"encoder\.down\.0\.block\.(\d+)\.", name))})
    config: Config = {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [vae[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": vae["encoder.conv_in.weight"][1],
        "latent_channels": vae["decoder.conv_in.weight"][1],
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "out_channels": vae["decoder.conv_out.weight"][0],
        "sample_size": PIXELS * FAMILIES[family].sample_size,
        "scaling_factor": autoencoder.scaling_factor,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    return config | ({"force_upcast": True} if autoencoder.overflows else {})


def _text_config(architecture: str, width: int, **sizes: Any) -> Config:
    return {
        "architectures": [architecture],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_size": width,
        "layer_norm_eps": 1e-05,
        "model_type": "clip_text_model",
        "num_attention_heads": width // _HEAD_WIDTH,
        "pad_token_id": 1,
        **sizes,
    }


def _clip_config(tensors: Shapes) -> Config:
    """OpenAI's ViT-L/14, as transformers names its tensors; early merges lack the first word."""
    held = {name.removeprefix("text_model."): shape for name, shape in tensors.items()}
    vocabulary, width = held["embeddings.token_embedding.weight"]
    return _text_config(
        "CLIPTextModel",
        width,
        hidden_act="quick_gelu",
        intermediate_size=held["encoder.layers.0.mlp.fc1.weight"][0],
        max_position_embeddings=held["embeddings.position_embedding.weight"][0],
        num_hidden_layers=_count_layers(held, r"encoder\.layers\.(\d+)\."),
        projection_dim=width,
        vocab_size=vocabulary,
    )


def _open_clip_config(tensors: Shapes, family: Family) -> Config:
    """OpenCLIP's ViT-H/14 (SD 2.x, which reads the states before the last layer) or ViT-bigG/14 (SDXL)."""
    vocabulary, width = tensors["token_embedding.weight"]
    layers = _count_layers(tensors, r"transformer\.resblocks\.(\d+)\.")
    projected = FAMILIES[family].time_ids > 0
    return _text_config(
        "CLIPTextModelWithProjection" if projected else "CLIPTextModel",
        width,
        hidden_act="gelu",
        intermediate_size=tensors["transformer.resblocks.0.mlp.c_fc.weight"][0],
        max_position_embeddings=tensors["positional_embedding"][0],
        num_hidden_layers=layers if projected else min(layers, PENULTIMATE_LAYERS),
        projection_dim=_projected_width(tensors) if projected else 512,
        vocab_size=vocabulary,
    )


def _projected_width(tensors: Shapes) -> int:
    """The width of the pooled state; diffusers' own script writes the projection as a layer's weight."""
    if "text_projection.weight" in tensors:
        return tensors["text_projection.weight"][0]
    return tensors["text_projection"][1]


PENULTIMATE_LAYERS = 23
"""Layers of SD 2.x's text encoder in diffusers' layout: OpenCLIP's 24 without the last one, which is never used."""


def _count_layers(tensors: Shapes, pattern: str) -> int:
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _count(tensors: Shapes) -> int:
    return sum(prod(shape) for shape in tensors.values())
