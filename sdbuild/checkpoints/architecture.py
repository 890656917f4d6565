"""What a network needs in memory, told from its configuration: how many weights, and its results at the fullest moment.

This is arithmetic over the published architectures (Rombach et al. 2022, High-Resolution Image Synthesis with Latent
Diffusion Models; Podell et al. 2023, SDXL; Radford et al. 2021, CLIP), for the moment before anything was converted.
The counts of weights are exact; the fullest moment follows the rules of `sdbuild.coreml.footprint` for the three places
where it can be: the attention, the feed-forward network behind it, and the group normalisation of a residual block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from sdbuild.families.family import PIXELS
from sdbuild.recipe.vocabulary import AttentionImplementation

Config = Mapping[str, Any]
Figure = TypeVar("Figure")

_QUERY_CHUNK = 512  # SPLIT_EINSUM_V2 attends to that many queries at a time


@dataclass(frozen=True, slots=True)
class Needs:
    """What a network needs.

    Attributes:
        parameters: how many numbers its weights hold.
        activations: bytes of inputs, outputs and results at the fullest moment.
    """

    parameters: int
    activations: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a denoiser or an autoencoder is built for.

    Attributes:
        height: rows of the latent.
        width: columns of the latent.
        batch: samples at a time.
        text_length: tokens of the text.
        attention: how attention is written.
        bytes: of one number.
    """

    height: int
    width: int
    batch: int = 2
    text_length: int = 77
    attention: AttentionImplementation = AttentionImplementation.SPLIT_EINSUM
    bytes: int = 2

    def points(self, level: int) -> int:
        """Points of the latent image after it was halved that many times."""
        scale: int = 2**level
        return -(-self.height // scale) * -(-self.width // scale)


def conv(inputs: int, outputs: int, size: int = 3) -> int:
    """Weights of a convolution with a bias."""
    return inputs * outputs * size * size + outputs


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _resnet(inputs: int, outputs: int, time: int = 0) -> int:
    shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
    embedding = _linear(time, outputs) if time else 0
    return 2 * (inputs + outputs) + conv(inputs, outputs) + conv(outputs, outputs) + embedding + shortcut


def _transformer(channels: int, depth: int, text: int) -> int:
    attention = 6 * channels**2 + 2 * text * channels + 2 * channels  # to itself, then to the text
    feed_forward = _linear(channels, 8 * channels) + _linear(4 * channels, channels)
    around = 2 * channels + 2 * _linear(channels, channels)
    return around + depth * (6 * channels + attention + feed_forward)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A residual block of a denoiser and the transformer behind it."""

    level: int
    inputs: int
    outputs: int
    depth: int  # transformer layers; 0 for none
    heads: int
    skips: int  # elements of one sample that wait for the way up meanwhile


class _Denoiser:
    """The blocks of diffusers' UNet2DConditionModel, or of a ControlNet, which is its first half."""

    def __init__(self, config: Config, shape: Shape, *, whole: bool) -> None:
        self.config = config
        self.shape = shape
        self.channels: Sequence[int] = config["block_out_channels"]
        levels = len(self.channels)
        self.time = 4 * self.channels[0]
        self.text = _per_level(config.get("cross_attention_dim"), levels, 1280)
        heads = config.get("num_attention_heads") or config.get("attention_head_dim")
        self.heads = _per_level(heads, levels, 8)
        self.layers = _per_level(config.get("layers_per_block"), levels, 2)
        self.depths = self._depths(config.get("transformer_layers_per_block", 1), "down_block_types", self.layers)
        self.skips: list[tuple[int, int]] = [(self.channels[0], 0)]  # channels and level of what goes the way up
        self.parameters = conv(int(config.get("in_channels") or 4), self.channels[0])
        self.parameters += _linear(self.channels[0], self.time) + _linear(self.time, self.time)
        if condition := config.get("time_cond_proj_dim"):
            self.parameters += int(condition) * self.channels[0]
        if projection := config.get("projection_class_embeddings_input_dim"):
            self.parameters += _linear(int(projection), self.time) + _linear(self.time, self.time)
        self.blocks = [*self._down(), *self._middle()]
        self.residuals = sum(self._elements(*skip) for skip in self.skips) + self._elements(
            self.channels[-1], levels - 1
        )
        if whole:
            self.blocks += self._up()
            self.parameters += 2 * self.channels[0] + conv(self.channels[0], int(config.get("out_channels") or 4))

    def fullest(self) -> int:
        """Elements of all samples' results at the fullest moment."""
        return max((self._block(layer) for layer in self.blocks), default=0) * self.shape.batch

    def features(self) -> int:
        """Elements of what T2I-Adapters add in one sample: once on each level, for SDXL once more in the middle."""
        attends = ["CrossAttn" in kind for kind in self.config["down_block_types"]]
        last = len(self.channels) - 1
        # A block without attention takes them after it has halved the size.
        levels = [level if attention else min(level + 1, last) for level, attention in enumerate(attends)]
        added = sum(self._elements(width, level) for width, level in zip(self.channels, levels, strict=True))
        is_xl = self.config.get("addition_embed_type") == "text_time"
        return added + (self._elements(self.channels[-1], last) if is_xl else 0)

    def _elements(self, channels: int, level: int) -> int:
        return channels * self.shape.points(level)

    def _waiting(self) -> int:
        return sum(self._elements(*skip) for skip in self.skips)

    def _depths(self, stated: Any, types: str, layers: Sequence[int]) -> list[list[int]]:
        """Transformer layers behind each residual block of each level."""
        kinds = self.config[types]
        per_level = [stated] * len(kinds) if isinstance(stated, int) else list(stated)
        depths = [
            depth if isinstance(depth, list) else [depth] * count
            for depth, count in zip(per_level, layers, strict=True)
        ]
        return [
            depth if "CrossAttn" in kind else [0] * count
            for kind, depth, count in zip(kinds, depths, layers, strict=True)
        ]

    def _add(self, level: int, inputs: int, outputs: int, depth: int, waiting: int) -> _Layer:
        self.parameters += _resnet(inputs, outputs, self.time)
        self.parameters += _transformer(outputs, depth, self.text[level]) if depth else 0
        return _Layer(level, inputs, outputs, depth, self.heads[level], waiting)

    def _down(self) -> Iterator[_Layer]:
        channels = self.channels[0]
        for level, outputs in enumerate(self.channels):
            for depth in self.depths[level]:
                yield self._add(level, channels, outputs, depth, self._waiting())
                channels = outputs
                self.skips.append((outputs, level))
            if level + 1 < len(self.channels):
                self.parameters += conv(outputs, outputs)
                self.skips.append((outputs, level + 1))

    def _middle(self) -> Iterator[_Layer]:
        level, channels = len(self.channels) - 1, self.channels[-1]
        kind = self.config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
        if kind is None:
            return
        stated = self.config.get("transformer_layers_per_block", 1)
        deepest = stated if isinstance(stated, int) else stated[-1]
        depth = (deepest if isinstance(deepest, int) else deepest[-1]) if "CrossAttn" in kind else 0
        yield self._add(level, channels, channels, depth, self._waiting())
        yield self._add(level, channels, channels, 0, self._waiting())

    def _up(self) -> Iterator[_Layer]:
        layers = [count + 1 for count in reversed(self.layers)]
        stated = self.config.get("reverse_transformer_layers_per_block")
        if stated is None:
            stated = self.config.get("transformer_layers_per_block", 1)
            stated = stated if isinstance(stated, int) else [_one(depth) for depth in reversed(stated)]
        depths = self._depths(stated, "up_block_types", layers)
        channels = self.channels[-1]
        for index, outputs in enumerate(reversed(self.channels)):
            level = len(self.channels) - 1 - index
            for depth in depths[index]:
                skip, _ = self.skips.pop()
                yield self._add(level, channels + skip, outputs, depth, self._waiting())
                channels = outputs
            if level:
                self.parameters += conv(outputs, outputs)

    def _block(self, layer: _Layer) -> int:
        """Elements of one sample at the block's fullest moment."""
        points = self.shape.points(layer.level)
        # Group normalisation: the shortcut, the centred values and their squares; or the skip, what came up and both.
        norm = max(2 * layer.inputs + layer.outputs, 3 * layer.outputs)
        fullest = norm * points
        if layer.depth:
            whole = layer.outputs * points
            # Beside the residuals of the transformer and of the layer: queries, keys, values and what they score; then
            # the feed-forward network's eight-fold width and its two halves.
            fullest = max(fullest, 5 * whole + self._scores(layer.heads, points), 18 * whole)
        return layer.skips + fullest

    def _scores(self, heads: int, points: int) -> int:
        """Elements of one sample's attention scores that are alive at once."""
        match self.shape.attention:
            case AttentionImplementation.ORIGINAL:
                return heads * points * points
            case AttentionImplementation.SPLIT_EINSUM:
                return points * points
            case AttentionImplementation.SPLIT_EINSUM_V2:
                return points * min(points, _QUERY_CHUNK)
            case AttentionImplementation.SDPA:
                return 0  # the fused operation writes none down


def if_known(needs: Callable[..., Figure], config: Config, *arguments: Any, **settings: Any) -> Figure | None:
    """What `needs` tells of a network; None where its configuration does not say enough, or something unheard of."""
    try:
        return needs(config, *arguments, **settings) if config else None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def score_bytes(config: Config, shape: Shape) -> int:
    """Bytes of the largest attention scores of a UNet when all heads' scores are one tensor."""
    layers = [layer for layer in _Denoiser(config, shape, whole=True).blocks if layer.depth]
    largest = max((layer.heads * shape.points(layer.level) ** 2 for layer in layers), default=0)
    return shape.batch * largest * shape.bytes


def unet_needs(
    config: Config, shape: Shape, *, residuals: bool = False, features: bool = False, chunks: int = 1
) -> Needs:
    """What a UNet needs; `residuals` for one that takes a ControlNet's, `features` for one that takes T2I-Adapters'.

    Of two chunks each has its own results, and the first hands the second everything that waits for the way up.
    """
    denoiser = _Denoiser(config, shape, whole=True)
    inputs = _sample(config, shape) + (denoiser.residuals if residuals else 0) + (chunks - 1) * denoiser.residuals
    inputs += denoiser.features() if features else 0
    return Needs(denoiser.parameters, chunks * (denoiser.fullest() + shape.batch * inputs) * shape.bytes)


def controlnet_needs(config: Config, shape: Shape) -> Needs:
    """What a ControlNet needs: a UNet's first half, an encoder of the picture, and its residuals, which are float32."""
    denoiser = _Denoiser(config, shape, whole=False)
    parameters = denoiser.parameters
    widths: Sequence[int] = config.get("conditioning_embedding_out_channels") or (16, 32, 96, 256)
    parameters += conv(int(config.get("conditioning_channels") or 3), widths[0])
    for inputs, outputs in pairwise(widths):
        parameters += conv(inputs, inputs) + conv(inputs, outputs)
    parameters += conv(widths[-1], denoiser.channels[0])
    skips = [channels for channels, _ in denoiser.skips] + [denoiser.channels[-1]]
    parameters += sum(conv(channels, channels, 1) for channels in skips)
    picture = PIXELS**2 * shape.height * shape.width
    fullest = max(denoiser.fullest(), shape.batch * 2 * widths[0] * picture)
    inputs = shape.batch * (_sample(config, shape) + 3 * picture)
    # Each residual is written when the way down is done: the fullest moment of that is over by then.
    return Needs(parameters, max(fullest * shape.bytes, 4 * shape.batch * denoiser.residuals) + inputs * shape.bytes)


def _sample(config: Config, shape: Shape) -> int:
    """Elements of one sample's latent, text and prediction."""
    latent = (int(config.get("in_channels") or 4) + 2 * int(config.get("out_channels") or 4)) * shape.points(0)
    text = max(_per_level(config.get("cross_attention_dim"), 1, 1280))
    return latent + text * shape.text_length


def text_encoder_needs(config: Config, length: int, bytes_: int, *, projection: bool) -> Needs:
    """What a CLIP text encoder needs; `projection` for one with a projection behind it."""
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    layers, vocabulary = int(config["num_hidden_layers"]), int(config.get("vocab_size") or 49408)
    layer = 4 * _linear(width, width) + _linear(width, inner) + _linear(inner, width) + 4 * width
    positions = int(config.get("max_position_embeddings") or 77)
    parameters = (vocabulary + positions) * width + layers * layer + 2 * width
    if projection:
        parameters += width * int(config.get("projection_dim") or width)
    heads = int(config.get("num_attention_heads") or 12)
    fullest = length * max(inner + 4 * width, 6 * width + heads * length)
    return Needs(parameters, fullest * bytes_)


def decoder_needs(config: Config, shape: Shape) -> Needs:
    """What the decoder of diffusers' AutoencoderKL needs, for one picture."""
    channels: Sequence[int] = config.get("block_out_channels") or (128, 256, 512, 512)
    latent, layers = int(config.get("latent_channels") or 4), int(config.get("layers_per_block") or 2)
    top = channels[-1]
    parameters = conv(latent, top) + _middle_of_autoencoder(top)
    parameters += conv(latent, latent, 1) if config.get("use_post_quant_conv", True) else 0
    fullest, previous = _autoencoder_attention(top, shape), top
    for level, outputs in enumerate(reversed(channels)):
        points = shape.height * shape.width * 4**level
        for _ in range(layers + 1):
            parameters += _resnet(previous, outputs)
            fullest = max(fullest, points * (2 * previous + outputs), points * 3 * outputs)
            previous = outputs
        if level + 1 < len(channels):
            parameters += conv(outputs, outputs)
            fullest = max(fullest, points * 4 * 2 * outputs)
    parameters += 2 * channels[0] + conv(channels[0], 3)
    return Needs(parameters, fullest * shape.bytes)


def encoder_needs(config: Config, shape: Shape) -> Needs:
    """What the encoder of diffusers' AutoencoderKL needs, for one picture."""
    channels: Sequence[int] = config.get("block_out_channels") or (128, 256, 512, 512)
    latent, layers = int(config.get("latent_channels") or 4), int(config.get("layers_per_block") or 2)
    top = channels[-1]
    parameters = conv(3, channels[0]) + _middle_of_autoencoder(top) + 2 * top + conv(top, 2 * latent)
    parameters += conv(2 * latent, 2 * latent, 1) if config.get("use_quant_conv", True) else 0
    fullest, previous = _autoencoder_attention(top, shape), channels[0]
    picture = shape.height * shape.width * 4 ** (len(channels) - 1)
    for level, outputs in enumerate(channels):
        for _ in range(layers):
            parameters += _resnet(previous, outputs)
            fullest = max(fullest, (picture // 4**level) * max(2 * previous + outputs, 3 * outputs))
            previous = outputs
        if level + 1 < len(channels):
            parameters += conv(outputs, outputs)
    return Needs(parameters, (fullest + 3 * picture) * shape.bytes)


def _middle_of_autoencoder(channels: int) -> int:
    return 2 * _resnet(channels, channels) + 2 * channels + 4 * _linear(channels, channels)


def _autoencoder_attention(channels: int, shape: Shape) -> int:
    points = shape.height * shape.width
    return 4 * channels * points + points * points


def _per_level(stated: Any, levels: int, default: int) -> list[int]:
    """A setting that is said once for all levels, or once for each."""
    if isinstance(stated, list | tuple):
        return [int(value) for value in stated]
    return [int(stated or default)] * levels


def _one(depth: Any) -> int:
    return int(depth[-1]) if isinstance(depth, list) else int(depth)
