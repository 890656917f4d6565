"""A file that holds one network of a pipeline: an autoencoder, a denoiser, or a ControlNet, whoever wrote its names.

Such a file has no configuration. Its own shapes tell what a network of the pipeline that it is for may differ in
(channels of the input, an embedded guidance scale, the autoencoder's levels); all else is what that pipeline's
configuration says, and the file must fit it, name by name and shape by shape. Layouts: diffusers' own, and that of the
original code (Rombach et al. 2022; Zhang et al. 2023 for ControlNets), each under the prefixes that programs write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdbuild.checkpoints import sd3_topology, topology
from sdbuild.checkpoints.checkpoint import StoredTensor
from sdbuild.checkpoints.single_file import Config, Folder, Shapes, vae_config
from sdbuild.checkpoints.single_file_tensors import component_tensors, diffusers_module
from sdbuild.checkpoints.tiny_autoencoder import TINY_CLASS, is_tiny, tiny_config, tiny_name, tiny_shapes
from sdbuild.errors import SdbuildError
from sdbuild.families import Family

_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "vae": ("first_stage_model.", "vae.", ""),
    "unet": ("model.diffusion_model.", "diffusion_model.", "unet.", "module.", ""),
    "transformer": ("transformer.", "module.", ""),
    "controlnet": ("control_model.", "controlnet.", "module.", ""),
}
# A name that only the component's own layout has, in diffusers' words and in the original code's.
_FIRST: Mapping[str, tuple[str, str]] = {
    "vae": (r"(encoder|decoder)\.(down|up|mid)_blocks?\.", r"(encoder|decoder)\.(down|up|mid)\."),
    "unet": (r"down_blocks\.0\.", r"input_blocks\.1\."),
    "transformer": (r"transformer_blocks\.0\.", r"joint_blocks\.0\."),
    "controlnet": (r"controlnet_cond_embedding\.", r"input_hint_block\."),
}
# Every name of the component, in both.
_UNET_NAMES = (
    r"(conv_in|conv_out|conv_norm_out|time_embedding|time_proj|add_embedding|class_embedding|encoder_hid_proj"
    r"|down_blocks|mid_block|up_blocks)\.",
    r"(time_embed|label_emb|input_blocks|middle_block|output_blocks|out)\.",
)
_VAE_NAMES = r"(encoder|decoder|quant_conv|post_quant_conv)\."
_OWN: Mapping[str, tuple[str, str]] = {
    "vae": (_VAE_NAMES, _VAE_NAMES),
    "unet": _UNET_NAMES,
    "transformer": (r"", r""),
    "controlnet": (
        _UNET_NAMES[0] + r"|(controlnet_cond_embedding|controlnet_down_blocks|controlnet_mid_block)\.",
        _UNET_NAMES[1] + r"|(input_hint_block|zero_convs|middle_block_out)\.",
    ),
}
_TOPOLOGIES = {
    "unet": topology.unet,
    "vae": topology.vae,
    "controlnet": topology.controlnet,
    "transformer": sd3_topology.transformer,
}
# Relatives of ControlNets that are wired in another way, by names that only they have.
_OTHER_CONTROLNETS = {
    "lora_controlnet": "a Control-LoRA, which is the difference to its base's UNet",
    "task_embedding": "a ControlNet of several conditions (union), which must be told which one it is given",
    "control_type_proj": "a ControlNet of several conditions (union), which must be told which one it is given",
    "lllite_unet": "a ControlNet-LLLite, which changes layers within the UNet",
    "controlnet_x_embedder.weight": "a ControlNet for another family",
    "adapter.body.0.block1.weight": "a T2I-Adapter: name it under t2i_adapters, as a directory",
}
# A ControlNet's settings that are its UNet's too.
_SHARED = (
    "act_fn", "addition_embed_type", "addition_time_embed_dim", "attention_head_dim", "block_out_channels",
    "class_embed_type", "cross_attention_dim", "down_block_types", "downsample_padding", "encoder_hid_dim",
    "encoder_hid_dim_type", "flip_sin_to_cos", "freq_shift", "layers_per_block", "mid_block_scale_factor",
    "mid_block_type", "norm_eps", "norm_num_groups", "num_attention_heads", "num_class_embeds", "only_cross_attention",
    "projection_class_embeddings_input_dim", "resnet_time_scale_shift", "transformer_layers_per_block",
    "upcast_attention", "use_linear_projection",
)  # fmt: skip
_SHOWN = 4


class PartFileError(SdbuildError):
    """A file is no such part, or does not fit the pipeline that it is for."""

    exit_status = 2


@dataclass(frozen=True)
class PartFile:
    """One network's tensors and configuration.

    Attributes:
        config: its `config.json` in diffusers' layout.
        prefix: what its tensors' names start with.
        is_original: whether the names are the original code's.
    """

    config: Config
    prefix: str
    is_original: bool


@dataclass(frozen=True)
class Layout:
    """Whose names a file has.

    Attributes:
        component: the network.
        prefix: what the names of its tensors start with.
        is_original: whether the names behind it are the original code's.
        tiny: TAESD's layout, where it is that.
    """

    component: str
    prefix: str
    is_original: bool
    tiny: str | None = None

    def owns(self, name: str) -> bool:
        """Whether a name behind the prefix is one of the network's."""
        if self.tiny is not None:
            return True
        return re.match(_OWN[self.component][int(self.is_original)], name) is not None


def layout_of(component: str, shapes: Shapes) -> Layout:
    """Whose names a file has.

    Raises:
        PartFileError: the file holds no such network, or a relative of it that cannot be built.
    """
    if component == "controlnet":
        for name, what in _OTHER_CONTROLNETS.items():
            if any(name in key for key in shapes):
                raise PartFileError(f"holds {what}; it cannot be built")
    if component == "vae" and (tiny := is_tiny(shapes)) is not None:
        return Layout(component, "", False, tiny)
    return Layout(component, *_layout(component, shapes))


def describe_part(component: str, shapes: Shapes, base: Mapping[str, Config]) -> PartFile:
    """Tell a part's layout and configuration.

    Args:
        component: `vae`, `unet`, `transformer` or `controlnet`.
        shapes: every tensor of the file.
        base: the configurations of the pipeline that it is for, by folder.

    Raises:
        PartFileError: the file holds no such network, or another one.
    """
    layout = layout_of(component, shapes)
    if layout.tiny is not None:
        return PartFile(tiny_config(shapes, layout.tiny), layout.tiny, is_original=False)
    prefix, is_original = layout.prefix, layout.is_original
    held = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    config = _config(component, held, base, is_original)
    return PartFile(config, prefix, is_original)


def part_tensors(component: str, part: PartFile, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The network's tensors by their names in diffusers' layout.

    Raises:
        ModelError: names each tensor that is none of the network's.
        PartFileError: names each tensor that is missing, or has another shape than the configuration asks for.
    """
    if part.config["_class_name"] == TINY_CLASS:
        found = {tiny_name(name, part.prefix): tensor for name, tensor in stored.items()}
        _compare(component, {n: s for n, s in tiny_shapes(part.config).items() if _half(n) in map(_half, found)}, found)
        return found
    if not part.is_original:
        layout = Layout(component, part.prefix, is_original=False)
        inner = {name.removeprefix(part.prefix): each for name, each in stored.items() if name.startswith(part.prefix)}
        found = {name: each for name, each in inner.items() if layout.owns(name)}
    elif component == "controlnet":
        found = _controlnet(part, stored)
    else:
        found = component_tensors(component, Folder(part.prefix, part.config, 0), stored)
    _check(component, part.config, found)
    return found


def _layout(component: str, shapes: Shapes) -> tuple[str, bool]:
    """The prefix of the component's names, and whether they are the original code's."""
    for prefix in _PREFIXES[component]:
        for is_original, pattern in enumerate(_FIRST[component]):
            if any(re.match(re.escape(prefix) + pattern, name) for name in shapes):
                if is_original and component == "transformer":
                    raise PartFileError(
                        "holds SD 3's transformer in the layout of the original code; give it in diffusers' layout"
                    )
                return prefix, bool(is_original)
    found = ", ".join(sorted({name.partition(".")[0] for name in shapes})[:8]) or "nothing"
    raise PartFileError(f"holds no {component} in a layout that is known here; its names start with: {found}")


def _config(component: str, held: Shapes, base: Mapping[str, Config], is_original: bool) -> Config:
    try:
        match component:
            case "vae":
                is_xl = base.get("unet", {}).get("addition_embed_type") == "text_time"
                return _vae(held, base.get("vae", {}), is_xl, is_original)
            case "controlnet":
                return _controlnet_config(held, base.get("unet", {}), is_original)
            case _:
                return _denoiser(component, held, base.get(component, {}), is_original)
    except (KeyError, IndexError, ValueError) as error:
        raise PartFileError(f"holds a {component} that lacks a tensor which all of them have ({error!r})") from error


def _vae(held: Shapes, base: Config, is_xl: bool, is_original: bool) -> Config:
    """The pipeline's autoencoder, with the levels of this one."""
    channels, wanted = held["decoder.conv_in.weight"][1], base.get("latent_channels", 4)
    if channels != wanted:
        raise PartFileError(
            f"holds a VAE of {channels} latent channels, and the pipeline has {wanted}: it is for another family"
        )
    if not is_original:
        return {**base, "_class_name": "AutoencoderKL", **_channels(held)}
    derived = vae_config(held, Family.SDXL if is_xl else Family.SD1)
    # What no shape tells, the factor above all, is the pipeline's own.
    return {**derived, **{name: value for name, value in base.items() if name not in derived or name in _SCALES}}


_SCALES = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast", "sample_size")


def _channels(held: Shapes) -> Config:
    """An autoencoder's levels in diffusers' layout."""
    widths = {}
    for name, shape in held.items():
        if match := re.fullmatch(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv2\.weight", name):
            widths[int(match[1])] = shape[0]
    layers = {m[1] for name in held if (m := re.match(r"encoder\.down_blocks\.0\.resnets\.(\d+)\.", name))}
    return {
        "block_out_channels": [widths[level] for level in range(len(widths))],
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "latent_channels": held["decoder.conv_in.weight"][1],
        "layers_per_block": len(layers),
        "use_quant_conv": "quant_conv.weight" in held,
        "use_post_quant_conv": "post_quant_conv.weight" in held,
    }


def _denoiser(component: str, held: Shapes, base: Config, is_original: bool) -> Config:
    """The pipeline's denoiser, with the inputs of this one."""
    if not base:
        raise PartFileError(f"holds a {component} without its configuration, and the pipeline has none either")
    if component == "transformer":
        return dict(base)
    first, last, guidance = (
        ("input_blocks.0.0.weight", "out.2.weight", "time_embed.cond_proj.weight")
        if is_original
        else ("conv_in.weight", "conv_out.weight", "time_embedding.cond_proj.weight")
    )
    own: dict[str, Any] = {"in_channels": held[first][1], "out_channels": held[last][0]}
    own["time_cond_proj_dim"] = held[guidance][1] if guidance in held else None
    return {**base, **own}


def _controlnet_config(held: Shapes, base: Config, is_original: bool) -> Config:
    """The pipeline's UNet as far as a ControlNet is its first half, with the condition's own encoder."""
    if not base:
        raise PartFileError("holds a ControlNet without its configuration, and the pipeline has no UNet's either")
    if is_original:
        hints = sorted({int(m[1]) for name in held if (m := re.match(r"input_hint_block\.(\d+)\.", name))})
        layers = [held[f"input_hint_block.{number}.weight"] for number in hints]
        first = held["input_blocks.0.0.weight"]
    else:
        numbers = {int(m[1]) for name in held if (m := re.match(r"controlnet_cond_embedding\.blocks\.(\d+)\.", name))}
        inner = [held[f"controlnet_cond_embedding.blocks.{number}.weight"] for number in sorted(numbers)]
        layers = [held["controlnet_cond_embedding.conv_in.weight"], *inner, (0,)]
        first = held["conv_in.weight"]
    return {
        "_class_name": "ControlNetModel",
        **{name: base[name] for name in _SHARED if name in base},
        "conditioning_channels": layers[0][1],
        # A convolution in, two for each further width, and one out.
        "conditioning_embedding_out_channels": [layers[0][0], *(shape[0] for shape in layers[2:-1:2])],
        "controlnet_conditioning_channel_order": "rgb",
        "in_channels": first[1],
    }


def _controlnet(part: PartFile, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Zhang et al.'s names as diffusers'."""
    inside = {name.removeprefix(part.prefix): tensor for name, tensor in stored.items() if name.startswith(part.prefix)}
    hints = sorted({int(m[1]) for name in inside if (m := re.match(r"input_hint_block\.(\d+)\.", name))})
    found: dict[str, StoredTensor] = {}
    strange: list[str] = []
    for name, tensor in inside.items():
        stem, _, kind = name.rpartition(".")
        module: str | None
        if match := re.fullmatch(r"input_hint_block\.(\d+)", stem):
            place = hints.index(int(match[1]))
            inner = "conv_in" if place == 0 else "conv_out" if place == len(hints) - 1 else f"blocks.{place - 1}"
            module = f"controlnet_cond_embedding.{inner}"
        elif match := re.fullmatch(r"zero_convs\.(\d+)\.0", stem):
            module = f"controlnet_down_blocks.{match[1]}"
        elif stem == "middle_block_out.0":
            module = "controlnet_mid_block"
        else:
            module = diffusers_module(stem, part.config["layers_per_block"])
        if module is None:
            strange.append(part.prefix + name)
        else:
            found[f"{module}.{kind}"] = tensor
    if strange:
        raise PartFileError(f"holds tensors that no ControlNet has: {_listed(strange)}")
    return found


def _check(component: str, config: Config, found: Mapping[str, StoredTensor]) -> None:
    """Refuse a network that is not the one of the configuration."""
    try:
        wanted = _TOPOLOGIES[component](config)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PartFileError(f"the pipeline's configuration for it does not say enough ({error!r})") from error
    _compare(component, wanted, found)


def _half(name: str) -> str:
    """`encoder` or `decoder`: the author of TAESD keeps them in two files."""
    return name.partition(".")[0]


def _compare(component: str, wanted: Shapes, found: Mapping[str, StoredTensor]) -> None:
    """Refuse what lacks a tensor, or has one of another shape."""
    missing = [name for name in wanted if name not in found and not _is_old(name)]
    if missing:
        raise PartFileError(f"has no {_listed(missing)}, which the pipeline's {component} has: it is for another one")
    for name, shape in wanted.items():
        if name in found and [s for s in found[name].shape if s != 1] != [s for s in shape if s != 1]:
            raise PartFileError(
                f"has {name} of shape {found[name].shape}, and the pipeline's {component} asks for {shape}: it is for "
                "another pipeline"
            )


def _is_old(name: str) -> bool:
    """Whether older files have a tensor of the autoencoder's attention under another name."""
    return ".attentions.0." in name and name.startswith(("encoder.mid_block", "decoder.mid_block"))


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
