"""Names and shapes of every tensor of a diffusers or transformers model, derived from its configuration alone.

Without torch: planning tells by it which tensors of a file are wanted, before anything is converted, and the tiny
checkpoints are made by it. Tests build the real classes and demand that not a single name or shape differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Config = Mapping[str, Any]


def join(prefix: str, parts: Mapping[str, Shapes]) -> Shapes:
    """All parts' tensors under `prefix` and the part's name."""
    return {f"{prefix}{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


def dense(inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    """A linear layer."""
    return {"weight": (outputs, inputs)} | ({"bias": (outputs,)} if bias else {})


def _conv(inputs: int, outputs: int, kernel: int = 3) -> Shapes:
    return {"weight": (outputs, inputs, kernel, kernel), "bias": (outputs,)}


def _norm(channels: int) -> Shapes:
    return {"weight": (channels,), "bias": (channels,)}


def _listed(items: Iterable[Shapes], name: str) -> dict[str, Shapes]:
    return {f"{name}.{index}": shapes for index, shapes in enumerate(items)}


def _per_block(value: Any, blocks: int) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] * blocks


def _depth(value: Any, layer: int) -> int:
    """How many transformer blocks a layer has: the same for the whole block, or listed."""
    return int(value[layer] if isinstance(value, list) else value)


# Blocks


def _resnet(inputs: int, outputs: int, time: int | None = None, *, scales: bool = False) -> Shapes:
    parts = {
        "norm1": _norm(inputs),
        "conv1": _conv(inputs, outputs),
        "norm2": _norm(outputs),
        "conv2": _conv(outputs, outputs),
    }
    if time is not None:
        parts["time_emb_proj"] = dense(time, 2 * outputs if scales else outputs)
    if inputs != outputs:
        parts["conv_shortcut"] = _conv(inputs, outputs, 1)
    return join("", parts)


def _attention(channels: int, context: int) -> Shapes:
    return join(
        "",
        {
            "to_q": dense(channels, channels, bias=False),
            "to_k": dense(context, channels, bias=False),
            "to_v": dense(context, channels, bias=False),
            "to_out.0": dense(channels, channels),
        },
    )


def _transformer(channels: int, context: int, depth: int, *, linear: bool, crosses: bool = False) -> Shapes:
    block = join(
        "",
        {
            "norm1": _norm(channels),
            "attn1": _attention(channels, context if crosses else channels),
            "norm2": _norm(channels),
            "attn2": _attention(channels, context),
            "norm3": _norm(channels),
            "ff.net.0.proj": dense(channels, 8 * channels),
            "ff.net.2": dense(4 * channels, channels),
        },
    )
    projection = dense(channels, channels) if linear else _conv(channels, channels, 1)
    parts = {"norm": _norm(channels), "proj_in": projection, "proj_out": projection}
    return join("", parts | _listed([block] * depth, "transformer_blocks"))


# UNet and ControlNet


def _scales(config: Config) -> bool:
    """Whether residual blocks take a factor and a summand from the time, and not the summand alone."""
    return bool(config.get("resnet_time_scale_shift") == "scale_shift")


def _unet_down(config: Config) -> Shapes:
    """conv_in, the embeddings, down_blocks and mid_block: what a UNet and its ControlNet have in common."""
    channels: list[int] = config["block_out_channels"]
    linear, scales = bool(config.get("use_linear_projection", False)), _scales(config)
    contexts = _per_block(config["cross_attention_dim"], len(channels))
    crosses = _per_block(config.get("only_cross_attention", False), len(channels))
    depths = _per_block(config.get("transformer_layers_per_block", 1), len(channels))
    counts = _per_block(config["layers_per_block"], len(channels))
    time = 4 * channels[0]
    parts = {
        "conv_in": _conv(config["in_channels"], channels[0]),
        "time_embedding.linear_1": dense(channels[0], time),
        "time_embedding.linear_2": dense(time, time),
    }
    if config.get("time_cond_proj_dim"):
        parts["time_embedding.cond_proj"] = dense(config["time_cond_proj_dim"], channels[0], bias=False)
    if config.get("encoder_hid_dim"):
        parts["encoder_hid_proj"] = dense(config["encoder_hid_dim"], config["cross_attention_dim"])
    if config.get("addition_embed_type") == "text_time":
        parts["add_embedding.linear_1"] = dense(config["projection_class_embeddings_input_dim"], time)
        parts["add_embedding.linear_2"] = dense(time, time)
    inputs = channels[0]
    for index, (kind, width) in enumerate(zip(config["down_block_types"], channels, strict=True)):
        block = f"down_blocks.{index}."
        for layer in range(counts[index]):
            before = inputs if layer == 0 else width
            parts[f"{block}resnets.{layer}"] = _resnet(before, width, time, scales=scales)
            if "CrossAttn" in kind:
                kinds = {"linear": linear, "crosses": crosses[index]}
                depth = _depth(depths[index], layer)
                parts[f"{block}attentions.{layer}"] = _transformer(width, contexts[index], depth, **kinds)
        if index < len(channels) - 1:
            parts[f"{block}downsamplers.0.conv"] = _conv(width, width)
        inputs = width
    mid = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    resnet = _resnet(inputs, inputs, time, scales=scales)
    if mid == "UNetMidBlock2D":
        parts["mid_block.resnets.0"] = resnet
    elif mid is not None:
        parts |= {f"mid_block.resnets.{index}": resnet for index in (0, 1)}
        depth = _depth(depths[-1], 0)
        parts["mid_block.attentions.0"] = _transformer(inputs, contexts[-1], depth, linear=linear)
    return join("", parts)


def unet(config: Config) -> Shapes:
    """UNet2DConditionModel."""
    channels: list[int] = config["block_out_channels"][::-1]
    linear, scales = bool(config.get("use_linear_projection", False)), _scales(config)
    contexts = _per_block(config["cross_attention_dim"], len(channels))[::-1]
    crosses = _per_block(config.get("only_cross_attention", False), len(channels))[::-1]
    depths = _per_block(config.get("transformer_layers_per_block", 1), len(channels))[::-1]
    depths = config.get("reverse_transformer_layers_per_block") or depths
    counts = _per_block(config["layers_per_block"], len(channels))[::-1]
    time, last = 4 * channels[-1], len(channels) - 1
    parts = {}
    previous = channels[0]
    for index, (kind, width) in enumerate(zip(config["up_block_types"], channels, strict=True)):
        block = f"up_blocks.{index}."
        layers = counts[index] + 1
        for layer in range(layers):
            skip = channels[min(index + 1, last)] if layer == layers - 1 else width
            inputs = (previous if layer == 0 else width) + skip
            parts[f"{block}resnets.{layer}"] = _resnet(inputs, width, time, scales=scales)
            if "CrossAttn" in kind:
                kinds = {"linear": linear, "crosses": crosses[index]}
                depth = _depth(depths[index], layer)
                parts[f"{block}attentions.{layer}"] = _transformer(width, contexts[index], depth, **kinds)
        if index < last:
            parts[f"{block}upsamplers.0.conv"] = _conv(width, width)
        previous = width
    parts |= {"conv_norm_out": _norm(previous), "conv_out": _conv(previous, config["out_channels"])}
    return _unet_down(config) | join("", parts)


def controlnet(config: Config) -> Shapes:
    """ControlNetModel: the UNet's first half, the condition's embedding and one 1×1 convolution for each residual."""
    channels: list[int] = config["block_out_channels"]
    condition: list[int] = config["conditioning_embedding_out_channels"]
    embedding = "controlnet_cond_embedding."
    pictures = config.get("conditioning_channels", 3)
    parts = {
        f"{embedding}conv_in": _conv(pictures, condition[0]),
        f"{embedding}conv_out": _conv(condition[-1], channels[0]),
    }
    for index, (inputs, outputs) in enumerate(pairwise(condition)):
        parts[f"{embedding}blocks.{2 * index}"] = _conv(inputs, inputs)
        parts[f"{embedding}blocks.{2 * index + 1}"] = _conv(inputs, outputs)
    residuals = [channels[0]]
    for index, (width, count) in enumerate(
        zip(channels, _per_block(config["layers_per_block"], len(channels)), strict=True)
    ):
        residuals += [width] * (count + (index < len(channels) - 1))
    parts |= _listed([_conv(width, width, 1) for width in residuals], "controlnet_down_blocks")
    parts["controlnet_mid_block"] = _conv(channels[-1], channels[-1], 1)
    return _unet_down(config) | join("", parts)


# T2I-Adapter


def t2i_adapter(config: Config) -> Shapes:
    """T2IAdapter: residual convolutions at each level; the light one's are narrow between two 1×1 convolutions."""
    channels: list[int] = config["channels"]
    first = config["in_channels"] * config["downscale_factor"] ** 2
    light, xl = config["adapter_type"] == "light_adapter", config["adapter_type"] == "full_adapter_xl"
    parts: dict[str, Shapes] = {} if light else {"conv_in": _conv(first, channels[0])}
    widths = [*channels, channels[-1]] if light else channels
    previous = first if light else channels[0]
    for index, width in enumerate(widths):
        block, inner = f"body.{index}.", width // 4 if light else width
        if light:
            parts |= {f"{block}in_conv": _conv(previous, inner, 1), f"{block}out_conv": _conv(inner, width, 1)}
        elif previous != width and not (xl and index > 2):
            parts[f"{block}in_conv"] = _conv(previous, width, 1)
        for layer in range(config["num_res_blocks"]):
            parts[f"{block}resnets.{layer}.block1"] = _conv(inner, inner)
            parts[f"{block}resnets.{layer}.block2"] = _conv(inner, inner, 3 if light else 1)
        previous = width
    return join("adapter.", parts)


# VAE


def _vae_mid(channels: int, *, attends: bool) -> dict[str, Shapes]:
    linear = dense(channels, channels)
    attention = {"group_norm": _norm(channels), "to_q": linear, "to_k": linear, "to_v": linear, "to_out.0": linear}
    resnet = _resnet(channels, channels)
    around = {"resnets.0": resnet, "resnets.1": resnet}
    return around | ({"attentions.0": join("", attention)} if attends else {})


def vae(config: Config) -> Shapes:
    """AutoencoderKL."""
    channels: list[int] = config["block_out_channels"]
    latent, layers = config["latent_channels"], config["layers_per_block"]
    parts = {
        "encoder.conv_in": _conv(config["in_channels"], channels[0]),
        "encoder.conv_norm_out": _norm(channels[-1]),
        "encoder.conv_out": _conv(channels[-1], 2 * latent),
        "decoder.conv_in": _conv(latent, channels[-1]),
        "decoder.conv_norm_out": _norm(channels[0]),
        "decoder.conv_out": _conv(channels[0], config["out_channels"]),
    }
    if config.get("use_quant_conv", True):
        parts["quant_conv"] = _conv(2 * latent, 2 * latent, 1)
    if config.get("use_post_quant_conv", True):
        parts["post_quant_conv"] = _conv(latent, latent, 1)
    for half, blocks, sampler, widths, count in (
        ("encoder", "down_blocks", "downsamplers", channels, layers),
        ("decoder", "up_blocks", "upsamplers", channels[::-1], layers + 1),
    ):
        inputs = widths[0]
        for index, width in enumerate(widths):
            for layer in range(count):
                parts[f"{half}.{blocks}.{index}.resnets.{layer}"] = _resnet(inputs if layer == 0 else width, width)
            if index < len(widths) - 1:
                parts[f"{half}.{blocks}.{index}.{sampler}.0.conv"] = _conv(width, width)
            inputs = width
        middle = _vae_mid(channels[-1], attends=config.get("mid_block_add_attention", True))
        parts |= {f"{half}.mid_block.{name}": shapes for name, shapes in middle.items()}
    return join("", parts)


# CLIP


def _clip_layers(config: Config) -> dict[str, Shapes]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    square = dense(width, width)
    attention = {f"self_attn.{name}_proj": square for name in ("k", "v", "q", "out")}
    rest = {
        "layer_norm1": _norm(width),
        "layer_norm2": _norm(width),
        "mlp.fc1": dense(width, inner),
        "mlp.fc2": dense(inner, width),
    }
    return _listed([join("", attention | rest)] * config["num_hidden_layers"], "encoder.layers")


def clip_text(config: Config) -> Shapes:
    """CLIPTextModel or, as the configuration's architecture says, CLIPTextModelWithProjection."""
    width, positions = config["hidden_size"], config["max_position_embeddings"]
    parts: dict[str, Shapes] = {
        "embeddings.token_embedding": {"weight": (config["vocab_size"], width)},
        "embeddings.position_embedding": {"weight": (positions, width)},
        "final_layer_norm": _norm(width),
    }
    shapes = join("text_model.", parts | _clip_layers(config))
    if config["architectures"] == ["CLIPTextModelWithProjection"]:
        return shapes | {"text_projection.weight": (config["projection_dim"], width)}
    # Checkpoints of 2022 hold this buffer, which today's classes no longer have.
    return shapes | {"text_model.embeddings.position_ids": (1, positions)}


def safety_checker(config: Config) -> Shapes:
    """StableDiffusionSafetyChecker: CLIP's vision tower and the embeddings of 17 concepts and 3 special ones."""
    vision: Config = config["vision_config"]
    width, patch, projection = vision["hidden_size"], vision["patch_size"], config["projection_dim"]
    positions = (vision["image_size"] // patch) ** 2 + 1
    parts: dict[str, Shapes] = {
        "embeddings.patch_embedding": {"weight": (width, 3, patch, patch)},
        "embeddings.position_embedding": {"weight": (positions, width)},
        "pre_layrnorm": _norm(width),
        "post_layernorm": _norm(width),
    }
    return join("vision_model.vision_model.", parts | _clip_layers(vision)) | {
        "vision_model.vision_model.embeddings.class_embedding": (width,),
        "vision_model.vision_model.embeddings.position_ids": (1, positions),
        "visual_projection.weight": (projection, width),
        "concept_embeds": (17, projection),
        "concept_embeds_weights": (17,),
        "special_care_embeds": (3, projection),
        "special_care_embeds_weights": (3,),
    }
