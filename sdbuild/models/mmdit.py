"""The multimodal diffusion transformer of Stable Diffusion 3 and 3.5 (Esser et al. 2024), channels first.

Image patches and text tokens each have their own weights and meet in one attention. The parameters have the names of
diffusers' `SD3Transformer2DModel`; activations are (B, C, 1, S) as in `sdbuild.models.transformer`, so that patches
enter and leave as pictures and nothing is transposed but the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sdbuild.checkpoints.checkpoint import Checkpoint, DerivedWeight
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.attention import AttentionFunction, attention_function
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.errors import ModelError
from sdbuild.models.layers import Sinusoid, normalise_channels, normalise_root_mean_square
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec, Weight

# The defaults of diffusers, for the fields that a config.json may leave out.
_DEFAULTS: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 18,
    "attention_head_dim": 64,
    "num_attention_heads": 18,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 96,
    "dual_attention_layers": (),
    "qk_norm": None,
}
_EPSILON = 1e-6
_TIME_CHANNELS = 256
_TIME_PROJECTION = "time_text_embed.time_proj"


class HeadNorm(nn.Module):
    """Root mean square normalisation of each attention head's queries or keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(1, 1, width, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, 1, S) → the same shape."""
        batch, channels, _, length = hidden.shape
        heads = hidden.reshape(batch, channels // self.width, self.width, length)
        return (normalise_root_mean_square(heads, 2, _EPSILON) * self.weight).reshape(hidden.shape)


class Modulation(nn.Module):
    """What time and prompt make of a norm: `parts` shifts, scales and gates of (B, C, 1, 1) each."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.sizes = [width] * parts
        self.linear = nn.Conv2d(width, parts * width, 1)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """(B, C, 1, 1), activated → the parts in the order of the checkpoint."""
        return torch.split(self.linear(condition), self.sizes, dim=1)


class JointAttention(nn.Module):
    """Attention of patches and tokens to each other, or of the patches alone.

    Args:
        width: channels.
        heads: attention heads.
        norm: whether queries and keys are normalised.
        attend: the way of attention.
        context: `None` without tokens; `"read"` where they are only attended to; `"both"` where they attend too.
    """

    def __init__(self, width: int, heads: int, norm: bool, attend: AttentionFunction, context: str | None) -> None:
        super().__init__()
        self.attend, self.heads = attend, heads
        self.scale = (width // heads) ** -0.5
        self.context = context

        def norm_or_none() -> nn.Module:
            return HeadNorm(width // heads) if norm else nn.Identity()

        self.to_q, self.to_k, self.to_v = (nn.Conv2d(width, width, 1) for _ in range(3))
        self.norm_q, self.norm_k = norm_or_none(), norm_or_none()
        self.to_out = nn.ModuleList([nn.Conv2d(width, width, 1)])
        if context is not None:
            self.add_k_proj, self.add_v_proj = (nn.Conv2d(width, width, 1) for _ in range(2))
            self.norm_added_k = norm_or_none()
        if context == "both":
            self.add_q_proj, self.to_add_out = (nn.Conv2d(width, width, 1) for _ in range(2))
            self.norm_added_q = norm_or_none()

    def forward(self, hidden: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, C, 1, S) and (B, C, 1, L) → the same shapes; None where tokens do not attend."""
        query = self.norm_q(self.to_q(hidden)) * self.scale
        key, value = self.norm_k(self.to_k(hidden)), self.to_v(hidden)
        if tokens is not None:
            key = torch.cat([key, self.norm_added_k(self.add_k_proj(tokens))], dim=3)
            value = torch.cat([value, self.add_v_proj(tokens)], dim=3)
        if tokens is None or self.context != "both":
            return self.to_out[0](self.attend(query, key, value, self.heads)), None
        query = torch.cat([query, self.norm_added_q(self.add_q_proj(tokens)) * self.scale], dim=3)
        lengths = [hidden.shape[3], tokens.shape[3]]
        of_patches, of_tokens = torch.split(self.attend(query, key, value, self.heads), lengths, dim=3)
        return self.to_out[0](of_patches), self.to_add_out(of_tokens)


class FeedForward(nn.Module):
    """Two layers with the tanh approximation of GELU between them; `net.1` was a dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first = nn.ModuleDict({"proj": nn.Conv2d(width, 4 * width, 1)})
        self.net = nn.ModuleList([first, nn.Identity(), nn.Conv2d(4 * width, width, 1)])

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, 1, S) → the same shape."""
        output: Tensor = self.net[2](functional.gelu(self.net[0]["proj"](hidden), approximate="tanh"))  # type: ignore[index]
        return output


class JointBlock(nn.Module):
    """diffusers' `JointTransformerBlock`.

    Args:
        width: channels.
        heads: attention heads.
        norm: whether queries and keys are normalised.
        attend: the way of attention.
        dual: whether the patches have a second attention to themselves, as in the first layers of 3.5 medium.
        last: whether nothing reads the tokens after this block.
    """

    def __init__(
        self, width: int, heads: int, norm: bool, attend: AttentionFunction, *, dual: bool, last: bool
    ) -> None:
        super().__init__()
        self.dual, self.last = dual, last
        self.norm1 = Modulation(width, 9 if dual else 6)
        self.norm1_context = Modulation(width, 2 if last else 6)
        self.attn = JointAttention(width, heads, norm, attend, "read" if last else "both")
        if dual:
            self.attn2 = JointAttention(width, heads, norm, attend, None)
        self.ff = FeedForward(width)
        if not last:
            self.ff_context = FeedForward(width)

    def forward(self, hidden: Tensor, tokens: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, 1, S), (B, C, 1, L) and (B, C, 1, 1), activated → patches and tokens."""
        shift, scale, gate, feed_shift, feed_scale, feed_gate, *second = self.norm1(condition)
        normed = normalise_channels(hidden, _EPSILON)
        if self.last:
            # This norm alone has its scale first.
            token_scale, token_shift = self.norm1_context(condition)
            token_parts: tuple[Tensor, ...] = ()
        else:
            token_shift, token_scale, *rest = self.norm1_context(condition)
            token_parts = tuple(rest)
        normed_tokens = normalise_channels(tokens, _EPSILON)
        attended, attended_tokens = self.attn(
            normed * (1 + scale) + shift, normed_tokens * (1 + token_scale) + token_shift
        )
        hidden = hidden + gate * attended
        if self.dual:
            second_shift, second_scale, second_gate = second
            hidden = hidden + second_gate * self.attn2(normed * (1 + second_scale) + second_shift)[0]
        hidden = _feed(self.ff, hidden, feed_shift, feed_scale, feed_gate)
        if not self.last:
            token_gate, *feed_parts = token_parts
            tokens = _feed(self.ff_context, tokens + token_gate * attended_tokens, *feed_parts)
        return hidden, tokens


def _feed(network: nn.Module, hidden: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    output: Tensor = hidden + gate * network(normalise_channels(hidden, _EPSILON) * (1 + scale) + shift)
    return output


class TwoLayers(nn.Module):
    """The perceptron that embeds time and pooled text."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Conv2d(inputs, width, 1)
        self.linear_2 = nn.Conv2d(width, width, 1)

    def forward(self, values: Tensor) -> Tensor:
        """(B, inputs, 1, 1) → (B, C, 1, 1)."""
        output: Tensor = self.linear_2(functional.silu(self.linear_1(values)))
        return output


class Transformer(nn.Module):
    """diffusers' `SD3Transformer2DModel` under the Swift package's calling convention.

    Args:
        config: the checkpoint's configuration with its defaults.
        attend: the way of attention.
        size: rows and columns of patches.
    """

    def __init__(self, config: Mapping[str, Any], attend: AttentionFunction, size: tuple[int, int]) -> None:
        super().__init__()
        heads, patch = config["num_attention_heads"], config["patch_size"]
        width = heads * config["attention_head_dim"]
        self.patch: int = patch
        self.size = size
        self.pos_embed = nn.ModuleDict({"proj": nn.Conv2d(config["in_channels"], width, patch, stride=patch)})
        self.pos_embed.register_buffer("pos_embed", torch.empty(1, width, *size))
        self.time_text_embed = nn.ModuleDict(
            {
                "time_proj": Sinusoid(_TIME_CHANNELS, flip_sin_to_cos=True, frequency_shift=0),
                "timestep_embedder": TwoLayers(_TIME_CHANNELS, width),
                "text_embedder": TwoLayers(config["pooled_projection_dim"], width),
            }
        )
        self.context_embedder = nn.Conv2d(config["joint_attention_dim"], width, 1)
        last = config["num_layers"] - 1
        self.transformer_blocks = nn.ModuleList(
            JointBlock(
                width,
                heads,
                config["qk_norm"] is not None,
                attend,
                dual=index in config["dual_attention_layers"],
                last=index == last,
            )
            for index in range(last + 1)
        )
        self.norm_out = Modulation(width, 2)
        self.proj_out = nn.Conv2d(width, patch * patch * (config["out_channels"] or config["in_channels"]), 1)

    def forward(
        self,
        latent_image_embeddings: Tensor,
        timestep: Tensor,
        token_level_text_embeddings: Tensor,
        pooled_text_embeddings: Tensor,
    ) -> tuple[Tensor]:
        """Predict the velocity (B, C, h, w); see `build_transformer` for the inputs."""
        batch = latent_image_embeddings.shape[0]
        embed = self.time_text_embed
        phases = embed["time_proj"](timestep).reshape(batch, _TIME_CHANNELS, 1, 1)
        condition = functional.silu(embed["timestep_embedder"](phases) + embed["text_embedder"](pooled_text_embeddings))
        patches = self.pos_embed["proj"](latent_image_embeddings) + self.pos_embed.pos_embed
        hidden = patches.reshape(batch, -1, 1, self.size[0] * self.size[1])
        tokens = self.context_embedder(token_level_text_embeddings)
        for block in self.transformer_blocks:
            hidden, tokens = block(hidden, tokens, condition)
        scale, shift = self.norm_out(condition)
        hidden = self.proj_out(normalise_channels(hidden, _EPSILON) * (1 + scale) + shift)
        return (functional.pixel_shuffle(hidden.reshape(batch, -1, *self.size), self.patch),)


def build_transformer(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The transformer of `checkpoint`; see `BuildArguments`.

    The text is as long as CLIP's states and T5's together: twice `text_sequence_length`.

    Raises:
        ModelError: a field of config.json is not supported, or the latent is too large or cannot be cut into patches.
    """
    raw = read_config(checkpoint, "SD3Transformer2DModel")
    config = _DEFAULTS | {key: value for key, value in raw.items() if value is not None or key == "out_channels"}
    _check(config, checkpoint)
    latent, batch = (arguments.latent_height, arguments.latent_width), arguments.batch
    size = _patches(config, *latent)
    attend = attention_function(arguments.attention_implementation, arguments.query_chunk)
    with torch.device("meta"):
        module = Transformer(config, attend, size).eval().requires_grad_(False)
    channels = config["out_channels"] or config["in_channels"]
    stored = Checkpoint.open(checkpoint)
    last = f"transformer_blocks.{config['num_layers'] - 1}.attn."
    # The last block computes its tokens' queries for nothing.
    unused = tuple(f"{last}{name}" for name in ("add_q_proj.", "norm_added_q."))
    return ComponentModel(
        component=component,
        module=module,
        inputs=(
            TensorSpec(
                "latent_image_embeddings", (batch, config["in_channels"], *latent), "float16", "The noisy latents."
            ),
            TensorSpec("timestep", (batch,), "float32", "1000 times the share of noise, 0 to 1000."),
            TensorSpec(
                "token_level_text_embeddings",
                (batch, config["joint_attention_dim"], 1, 2 * arguments.text_sequence_length),
                "float16",
                "Both CLIP encoders' hidden states side by side, filled up with zeros, then T5's states or zeros.",
            ),
            TensorSpec(
                "pooled_text_embeddings",
                (batch, config["pooled_projection_dim"], 1, 1),
                "float16",
                "Both CLIP encoders' pooled outputs.",
            ),
        ),
        outputs=(
            TensorSpec("denoiser_output", (batch, channels, *latent), "float32", "The velocity: noise less latents."),
        ),
        weights=map_weights(
            module,
            stored,
            lambda name: None if name.startswith(unused) else name,
            _given(stored, module, config, channels),
        ),
        float32_modules=(_TIME_PROJECTION,),
    )


def _check(config: Mapping[str, Any], checkpoint: Path) -> None:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    wrong = {
        "qk_norm": config["qk_norm"] in (None, "rms_norm"),
        "caption_projection_dim": config["caption_projection_dim"] == width,
        "pos_embed_max_size": bool(config["pos_embed_max_size"]),
    }
    for field, supported in wrong.items():
        if not supported:
            raise ModelError(
                f"{checkpoint / 'config.json'}: {field} = {config[field]!r} is not supported: Stable Diffusion 3 and "
                f"3.5 have qk_norm null or 'rms_norm', caption_projection_dim {width} for this many heads, and a "
                "pos_embed_max_size."
            )


def _patches(config: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    patch, largest = config["patch_size"], config["pos_embed_max_size"]
    if height % patch or width % patch:
        near = [max(size // patch, 1) * patch for size in (height, width)]
        raise ModelError(
            f"A latent of {height} by {width} cannot be cut into patches: both must be multiples of {patch}, for "
            f"example {near[0]} by {near[1]}."
        )
    if max(height, width) > patch * largest:
        raise ModelError(
            f"A latent of {height} by {width} is too large: the model has positions for {patch * largest} by "
            f"{patch * largest}."
        )
    return height // patch, width // patch


def _given(stored: Checkpoint, module: Transformer, config: Mapping[str, Any], channels: int) -> dict[str, Weight]:
    """The weights that are not stored as the module wants them."""
    given: dict[str, Weight] = dict(module.time_text_embed["time_proj"].constant(_TIME_PROJECTION))  # type: ignore[operator]
    largest, size, squared = config["pos_embed_max_size"], module.size, config["patch_size"] ** 2
    width = module.context_embedder.out_channels

    def middle(values: NDArray[Any]) -> NDArray[Any]:
        """The positions in the middle of the square that the model knows."""
        top, left = ((largest - count) // 2 for count in size)
        square = values.reshape(largest, largest, width)[top : top + size[0], left : left + size[1]]
        return square.transpose(2, 0, 1)

    def channels_first(values: NDArray[Any]) -> NDArray[Any]:
        """A patch's pixels in the order of `pixel_shuffle`: channels, then rows and columns."""
        return values.reshape(squared, channels, -1).swapaxes(0, 1)

    name = "pos_embed.pos_embed"
    if name in stored and stored[name].shape == (1, largest * largest, width):
        given[name] = DerivedWeight(stored[name], (1, width, *size), middle)
    for name, shape in (("proj_out.weight", (squared * channels, width)), ("proj_out.bias", (squared * channels,))):
        if name in stored and stored[name].shape == shape:
            wanted = tuple(module.get_parameter(name).shape)
            given[name] = DerivedWeight(stored[name], wanted, channels_first)
    return given
