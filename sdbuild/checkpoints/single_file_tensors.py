"""A component's tensors out of a single-file checkpoint, under the names and shapes of diffusers' layout.

No tensor is read here: names are translated, and OpenCLIP's fused projections are three views of one stored tensor. The
original names are those of the code of Latent Diffusion (Rombach et al. 2022) and of OpenCLIP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from sdbuild.checkpoints.checkpoint import StoredTensor, read_pickle, read_safetensors
from sdbuild.checkpoints.header import TensorHeader
from sdbuild.checkpoints.single_file import CLIP, PREFIXES, Config, Folder, inside
from sdbuild.models.errors import ModelError

Part = tuple[str, StoredTensor]

_UNUSED = ""  # the name of a tensor that is known, and that diffusers' layout has no place for

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "time_embed.cond_proj": "time_embedding.cond_proj",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPEN_CLIP_ENDS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


def open_single_file(path: Path, prefixes: tuple[str, ...] = PREFIXES) -> dict[str, StoredTensor]:
    """The tensors of a file whose names start with one of `prefixes`, none of them read.

    A pickle (`.ckpt`, `.pt`, …) is unpickled with `weights_only`, under which nothing but tensors and plain containers
    can be made.

    Raises:
        ModelError: the file is damaged, or holds what is neither a tensor nor a plain value.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path, prefixes)
    if path.suffix == ".gguf":
        from sdbuild.checkpoints.gguf_file import read_gguf

        return read_gguf(path, prefixes)
    return read_pickle(path, prefixes)


def component_tensors(name: str, folder: Folder, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """One component's tensors by their names in diffusers' layout.

    Args:
        name: the component's folder in that layout.
        folder: what `sdbuild.checkpoints.single_file.describe` found of it.
        stored: the file's tensors.

    Raises:
        ModelError: names each tensor that is none of the component's.
    """
    parts: dict[str, StoredTensor] = {}
    strange: list[str] = []
    translate = _translation(name, folder)
    for key, tensor in inside(stored, folder.prefix).items():
        found = list(translate(key, tensor))
        strange += [folder.prefix + key] if not found else []
        parts.update(found)
    if strange:
        raise ModelError(
            f"{name}: unknown tensors in the checkpoint: {', '.join(sorted(strange)[:8])}"
            f"{' and more' if len(strange) > 8 else ''}. It is no plain checkpoint of a published family; "
            "give the model in diffusers' layout."
        )
    parts.pop(_UNUSED, None)
    return parts


def translated(component: str, folder: Folder, name: str, tensor: TensorHeader) -> dict[str, TensorHeader]:
    """What one tensor of the file becomes, by its header alone.

    Args:
        component: the component's folder in diffusers' layout.
        folder: what `sdbuild.checkpoints.single_file.describe` found of it.
        name: the tensor's, without the component's prefix.
        tensor: its shape and type.

    Returns:
        Name in diffusers' layout → shape and type; the empty name for a tensor without a place there, and nothing for
        one that the component has not.
    """
    empty = np.broadcast_to(np.zeros((), np.float16), tensor.shape)
    stand_in = StoredTensor(name, tensor.shape, tensor.dtype, empty, mapped=False)
    found = _translation(component, folder)(name, stand_in)
    return {target: TensorHeader(part.shape, tensor.dtype) for target, part in found}


def _translation(name: str, folder: Folder) -> Callable[[str, StoredTensor], Iterator[Part]]:
    match name:
        case "unet":
            return lambda key, tensor: _unet(key, tensor, folder.config)
        case "vae":
            return lambda key, tensor: _vae(key, tensor, folder.config)
        case _ if folder.dialect == CLIP:
            return _clip
        case _:
            return lambda key, tensor: _open_clip(key, tensor, folder.config)


def _unet(key: str, tensor: StoredTensor, config: Config) -> Iterator[Part]:
    stem, _, kind = key.rpartition(".")
    module = diffusers_module(stem, config["layers_per_block"])
    if module is not None:
        yield f"{module}.{kind}", tensor


def diffusers_module(name: str, layers: int, separator: str = ".") -> str | None:
    """A module of the UNet by its name in diffusers' layout; None for a name that the original code has not.

    Args:
        name: the original code's name, such as `input_blocks.4.1.transformer_blocks.0.attn1.to_q`.
        layers: residual blocks at each level.
        separator: what stands between the parts of `name` and of the result; some LoRAs write `_`.
    """

    def joined(names: str) -> str:
        return names.replace(".", separator)

    ends = {joined(old): joined(new) for old, new in _UNET_ENDS.items()}
    residual = {joined(old): new for old, new in _RESIDUAL.items()}
    if name in ends:
        return ends[name]
    dot = re.escape(separator)
    match = re.fullmatch(rf"(?:(input|output)_blocks{dot}(\d+){dot}(\d)|middle_block{dot}([012])){dot}(.+)", name)
    if match is None:
        return None
    inner: str | None = match[5]
    if match[4]:
        attends, block = match[4] == "1", f"mid_block.resnets.{int(match[4]) // 2}"
        if attends:
            block = "mid_block.attentions.0"
    else:
        down = match[1] == "input"
        # The very first input block is the convolution in front of all levels.
        level, layer = divmod(int(match[2]) - down, layers + 1)
        block, attends = f"{'down' if down else 'up'}_blocks.{level}", match[3] != "0"
        if inner in ("op", "conv"):
            return joined(f"{block}.{'downsamplers' if down else 'upsamplers'}.0.conv")
        block += f".attentions.{layer}" if attends else f".resnets.{layer}"
    inner = inner if attends else residual.get(match[5])
    return f"{joined(block)}{separator}{inner}" if inner is not None else None


def _vae(key: str, tensor: StoredTensor, config: Config) -> Iterator[Part]:
    stem, _, kind = key.rpartition(".")
    if stem in ("quant_conv", "post_quant_conv") or re.fullmatch(r"(encoder|decoder)\.conv_(in|out)", stem):
        yield key, tensor
    elif match := re.fullmatch(r"(encoder|decoder)\.norm_out", stem):
        yield f"{match[1]}.conv_norm_out.{kind}", tensor
    elif match := re.fullmatch(r"(encoder|decoder)\.mid\.block_([12])\.(.+)", stem):
        yield f"{match[1]}.mid_block.resnets.{int(match[2]) - 1}.{_shortcut(match[3])}.{kind}", tensor
    elif match := re.fullmatch(r"(encoder|decoder)\.mid\.attn_1\.(norm|q|k|v|proj_out)", stem):
        # Projections are 1×1 convolutions there and linear layers here.
        linear = tensor.reshaped(tensor.shape[:2]) if kind == "weight" and match[2] != "norm" else tensor
        yield f"{match[1]}.mid_block.attentions.0.{_VAE_ATTENTION[match[2]]}.{kind}", linear
    elif match := re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(block\.(\d+)\.(.+)|(down|up)sample\.conv)", stem):
        # The decoder counts its levels from the picture, diffusers from the latent image.
        levels = len(config["block_out_channels"])
        level = int(match[2]) if match[1] == "encoder.down" else levels - 1 - int(match[2])
        block = f"{match[1]}_blocks.{level}"
        inner = f"{match[6]}samplers.0.conv" if match[6] else f"resnets.{match[4]}.{_shortcut(match[5])}"
        yield f"{block}.{inner}.{kind}", tensor


def _shortcut(name: str) -> str:
    return "conv_shortcut" if name == "nin_shortcut" else name


def _clip(key: str, tensor: StoredTensor) -> Iterator[Part]:
    if key.removeprefix("text_model.").startswith(("embeddings.", "encoder.", "final_layer_norm.")):
        yield key if key.startswith("text_model.") else f"text_model.{key}", tensor


def _open_clip(key: str, tensor: StoredTensor, config: Config) -> Iterator[Part]:
    if key in _OPEN_CLIP_ENDS:
        yield _OPEN_CLIP_ENDS[key], tensor
    elif key in ("text_projection", "text_projection.weight"):
        # There it stands on the right of a product, here on the left; diffusers' own script writes a layer's weight.
        projected = "CLIPTextModelWithProjection" in config["architectures"]
        turned = tensor.transposed() if key == "text_projection" else tensor
        yield "text_projection.weight" if projected else _UNUSED, turned
    elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)", key):
        layer, inner, kind = f"text_model.encoder.layers.{match[1]}", match[2], match[3]
        if int(match[1]) >= config["num_hidden_layers"]:
            yield _UNUSED, tensor
        elif inner == "attn.in_proj":
            width = config["hidden_size"]
            for index, name in enumerate("qkv"):
                yield f"{layer}.self_attn.{name}_proj.{kind}", tensor.piece(index * width, (index + 1) * width)
        elif inner in _OPEN_CLIP_LAYER:
            yield f"{layer}.{_OPEN_CLIP_LAYER[inner]}.{kind}", tensor
