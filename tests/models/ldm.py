"""Checkpoints in the layout of the original code: the names and shapes of its modules, as its sources define them.

Written from the structure of those networks and not by translating ours back, so that a test compares two ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]
Tensors = dict[str, Shape]


@dataclass(frozen=True)
class Network:
    """The sizes of one checkpoint.

    Attributes:
        channels: of each level of the UNet.
        depths: transformer layers at each level; the middle has those of the last level that has any, unless said.
        context: width of the text states.
        condition: width of SDXL's second condition; 0 for none.
        linear: whether projections around transformers are linear layers.
        encoders: prefix → (dialect, width, layers, projection).
        vae: channels of each level of the autoencoder.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    middle: int
    context: int
    encoders: dict[str, tuple[str, int, int, int]]
    condition: int = 0
    linear: bool = True
    in_channels: int = 4
    layers: int = 2
    vae: tuple[int, ...] = (128, 256, 512, 512)
    vocabulary: int = 49408


SD1 = Network(
    channels=(320, 640, 1280, 1280),
    depths=(1, 1, 1, 0),
    middle=1,
    context=768,
    encoders={"cond_stage_model.transformer.": ("clip", 768, 12, 0)},
    linear=False,
)
SD2 = Network(
    channels=(320, 640, 1280, 1280),
    depths=(1, 1, 1, 0),
    middle=1,
    context=1024,
    encoders={"cond_stage_model.model.": ("open_clip", 1024, 24, 1024)},
)
SDXL = Network(
    channels=(320, 640, 1280),
    depths=(0, 2, 10),
    middle=10,
    context=2048,
    encoders={
        "conditioner.embedders.0.transformer.": ("clip", 768, 12, 0),
        "conditioner.embedders.1.model.": ("open_clip", 1280, 32, 1280),
    },
    condition=2816,
)
REFINER = Network(
    channels=(384, 768, 1536, 1536),
    depths=(0, 4, 4, 0),
    middle=4,
    context=1280,
    encoders={"conditioner.embedders.0.model.": ("open_clip", 1280, 32, 1280)},
    condition=2560,
)
# Small ones: 64 channels a head, and the VAE's norms have 32 groups.
TINY_SD1 = Network(
    channels=(32, 64, 64),
    depths=(1, 1, 0),
    middle=1,
    context=64,
    encoders={"cond_stage_model.transformer.": ("clip", 64, 2, 0)},
    linear=False,
    layers=1,
    vae=(32, 32, 64, 64),
    vocabulary=100,
)
TINY_SD2 = Network(
    channels=(64, 64, 128),
    depths=(1, 1, 0),
    middle=1,
    context=128,
    encoders={"cond_stage_model.model.": ("open_clip", 128, 2, 128)},
    layers=1,
    vae=(32, 32, 64, 64),
    vocabulary=100,
)
TINY_SDXL = Network(
    channels=(64, 64, 128),
    depths=(0, 1, 2),
    middle=2,
    context=64 + 128,
    encoders={
        "conditioner.embedders.0.transformer.": ("clip", 64, 2, 0),
        "conditioner.embedders.1.model.": ("open_clip", 128, 2, 128),
    },
    condition=6 * 8 + 128,
    layers=1,
    vae=(32, 32, 64, 64),
    vocabulary=100,
)


def tensors(network: Network) -> Tensors:
    """Every tensor of the checkpoint and its shape."""
    found = {f"model.diffusion_model.{name}": shape for name, shape in _unet(network)}
    found |= {f"first_stage_model.{name}": shape for name, shape in _vae(network.vae)}
    for prefix, (dialect, width, layers, projection) in network.encoders.items():
        make = _clip if dialect == "clip" else _open_clip
        found |= {prefix + name: shape for name, shape in make(network.vocabulary, width, layers, projection)}
    # Beside the networks, such files hold schedules, losses and counters.
    return found | {"betas": (1000,), "model_ema.decay": (), "first_stage_model.loss.logvar": ()}


Named = Iterator[tuple[str, Shape]]


def _layer(name: str, *shape: int) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _norm(name: str, width: int) -> Named:
    yield from _layer(name, width)


def _unet(network: Network) -> Named:
    first = network.channels[0]
    time = 4 * first
    yield from _layer("time_embed.0", time, first)
    yield from _layer("time_embed.2", time, time)
    if network.condition:
        yield from _layer("label_emb.0.0", time, network.condition)
        yield from _layer("label_emb.0.2", time, time)
    yield from _layer("input_blocks.0.0", first, network.in_channels, 3, 3)
    skips, width, number = [first], first, 1
    for level, (channels, depth) in enumerate(zip(network.channels, network.depths, strict=True)):
        for _ in range(network.layers):
            yield from _residual(f"input_blocks.{number}.0", width, channels, time)
            yield from _transformers(f"input_blocks.{number}.1", channels, depth, network)
            width, number = channels, number + 1
            skips.append(width)
        if level + 1 < len(network.channels):
            yield from _layer(f"input_blocks.{number}.0.op", width, width, 3, 3)
            number += 1
            skips.append(width)
    yield from _residual("middle_block.0", width, width, time)
    yield from _transformers("middle_block.1", width, network.middle, network)
    yield from _residual("middle_block.2", width, width, time)
    number = 0
    for level, (channels, depth) in reversed(list(enumerate(zip(network.channels, network.depths, strict=True)))):
        for index in range(network.layers + 1):
            yield from _residual(f"output_blocks.{number}.0", width + skips.pop(), channels, time)
            yield from _transformers(f"output_blocks.{number}.1", channels, depth, network)
            width = channels
            if level and index == network.layers:
                yield from _layer(f"output_blocks.{number}.{2 if depth else 1}.conv", width, width, 3, 3)
            number += 1
    yield from _norm("out.0", first)
    yield from _layer("out.2", 4, first, 3, 3)


def _residual(name: str, before: int, after: int, time: int) -> Named:
    yield from _norm(f"{name}.in_layers.0", before)
    yield from _layer(f"{name}.in_layers.2", after, before, 3, 3)
    yield from _layer(f"{name}.emb_layers.1", after, time)
    yield from _norm(f"{name}.out_layers.0", after)
    yield from _layer(f"{name}.out_layers.3", after, after, 3, 3)
    if before != after:
        yield from _layer(f"{name}.skip_connection", after, before, 1, 1)


def _transformers(name: str, width: int, depth: int, network: Network) -> Named:
    if not depth:
        return
    point = () if network.linear else (1, 1)
    yield from _norm(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, *point)
    yield from _layer(f"{name}.proj_out", width, width, *point)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, keys in (("attn1", width), ("attn2", network.context)):
            yield f"{block}.{attention}.to_q.weight", (width, width)
            yield f"{block}.{attention}.to_k.weight", (width, keys)
            yield f"{block}.{attention}.to_v.weight", (width, keys)
            yield from _layer(f"{block}.{attention}.to_out.0", width, width)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _layer(f"{block}.ff.net.2", width, 4 * width)
        for number in (1, 2, 3):
            yield from _norm(f"{block}.norm{number}", width)


def _vae(channels: tuple[int, ...]) -> Named:
    layers = 2
    yield from _layer("quant_conv", 8, 8, 1, 1)
    yield from _layer("post_quant_conv", 4, 4, 1, 1)
    yield from _layer("encoder.conv_in", channels[0], 3, 3, 3)
    width = channels[0]
    for level, after in enumerate(channels):
        for index in range(layers):
            yield from _block(f"encoder.down.{level}.block.{index}", width, after)
            width = after
        if level + 1 < len(channels):
            yield from _layer(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    yield from _middle("encoder.mid", width)
    yield from _norm("encoder.norm_out", width)
    yield from _layer("encoder.conv_out", 8, width, 3, 3)
    yield from _layer("decoder.conv_in", width, 4, 3, 3)
    yield from _middle("decoder.mid", width)
    for level, after in reversed(list(enumerate(channels))):
        for index in range(layers + 1):
            yield from _block(f"decoder.up.{level}.block.{index}", width, after)
            width = after
        if level:
            yield from _layer(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    yield from _norm("decoder.norm_out", width)
    yield from _layer("decoder.conv_out", 3, width, 3, 3)


def _middle(name: str, width: int) -> Named:
    yield from _block(f"{name}.block_1", width, width)
    yield from _norm(f"{name}.attn_1.norm", width)
    for projection in ("q", "k", "v", "proj_out"):
        yield from _layer(f"{name}.attn_1.{projection}", width, width, 1, 1)
    yield from _block(f"{name}.block_2", width, width)


def _block(name: str, before: int, after: int) -> Named:
    yield from _norm(f"{name}.norm1", before)
    yield from _layer(f"{name}.conv1", after, before, 3, 3)
    yield from _norm(f"{name}.norm2", after)
    yield from _layer(f"{name}.conv2", after, after, 3, 3)
    if before != after:
        yield from _layer(f"{name}.nin_shortcut", after, before, 1, 1)


def _clip(vocabulary: int, width: int, layers: int, projection: int) -> Named:
    yield "text_model.embeddings.position_ids", (1, 77)
    yield "text_model.embeddings.token_embedding.weight", (vocabulary, width)
    yield "text_model.embeddings.position_embedding.weight", (77, width)
    for index in range(layers):
        layer = f"text_model.encoder.layers.{index}"
        for projected in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{layer}.self_attn.{projected}", width, width)
        yield from _layer(f"{layer}.mlp.fc1", 4 * width, width)
        yield from _layer(f"{layer}.mlp.fc2", width, 4 * width)
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _norm(f"{layer}.layer_norm2", width)
    yield from _norm("text_model.final_layer_norm", width)


def _open_clip(vocabulary: int, width: int, layers: int, projection: int) -> Named:
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, projection)
    yield "logit_scale", ()
    yield "token_embedding.weight", (vocabulary, width)
    for index in range(layers):
        layer = f"transformer.resblocks.{index}"
        yield f"{layer}.attn.in_proj_weight", (3 * width, width)
        yield f"{layer}.attn.in_proj_bias", (3 * width,)
        yield from _layer(f"{layer}.attn.out_proj", width, width)
        yield from _layer(f"{layer}.mlp.c_fc", 4 * width, width)
        yield from _layer(f"{layer}.mlp.c_proj", width, 4 * width)
        yield from _norm(f"{layer}.ln_1", width)
        yield from _norm(f"{layer}.ln_2", width)
    yield from _norm("ln_final", width)
