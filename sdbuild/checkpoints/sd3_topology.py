"""Names and shapes of every tensor of SD 3's transformer and of T5's encoder, by their configurations alone."""

from __future__ import annotations

from sdbuild.checkpoints.topology import Config, Shapes, dense, join

_TIME_CHANNELS = 256


def transformer(config: Config) -> Shapes:
    """SD3Transformer2DModel."""
    head = config["attention_head_dim"]
    width = config["num_attention_heads"] * head
    square, patch = dense(width, width), config["patch_size"]
    norms: Shapes = {"weight": (head,)} if config.get("qk_norm") else {}
    own = {"to_q": square, "to_k": square, "to_v": square, "to_out.0": square, "norm_q": norms, "norm_k": norms}
    added = {"add_q_proj": square, "add_k_proj": square, "add_v_proj": square}
    added |= {"norm_added_q": norms, "norm_added_k": norms}
    feed = join("", {"net.0.proj": dense(width, 4 * width), "net.2": dense(4 * width, width)})
    parts: dict[str, Shapes] = {
        "pos_embed": {
            "pos_embed": (1, config["pos_embed_max_size"] ** 2, width),
            "proj.weight": (width, config["in_channels"], patch, patch),
            "proj.bias": (width,),
        },
        "time_text_embed.timestep_embedder.linear_1": dense(_TIME_CHANNELS, width),
        "time_text_embed.timestep_embedder.linear_2": square,
        "time_text_embed.text_embedder.linear_1": dense(config["pooled_projection_dim"], width),
        "time_text_embed.text_embedder.linear_2": square,
        "context_embedder": dense(config["joint_attention_dim"], width),
        "norm_out.linear": dense(width, 2 * width),
        "proj_out": dense(width, patch * patch * config["out_channels"]),
    }
    last = config["num_layers"] - 1
    for index in range(last + 1):
        block, dual = f"transformer_blocks.{index}.", index in config.get("dual_attention_layers", ())
        parts[f"{block}norm1.linear"] = dense(width, (9 if dual else 6) * width)
        parts[f"{block}norm1_context.linear"] = dense(width, (2 if index == last else 6) * width)
        parts[f"{block}attn"] = join("", own | added | ({} if index == last else {"to_add_out": square}))
        parts[f"{block}ff"] = feed
        if dual:
            parts[f"{block}attn2"] = join("", own)
        if index < last:
            parts[f"{block}ff_context"] = feed
    return join("", parts)


def t5(config: Config) -> Shapes:
    """T5EncoderModel; version 1.1 has gated feed-forward networks, version 1 plain ones."""
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    parts: dict[str, Shapes] = {
        "shared": {"weight": (config["vocab_size"], width)},
        "encoder.final_layer_norm": {"weight": (width,)},
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": {
            "weight": (config["relative_attention_num_buckets"], config["num_heads"])
        },
    }
    for index in range(config["num_layers"]):
        layers = f"encoder.block.{index}.layer."
        parts |= {f"{layers}0.SelfAttention.{name}": dense(width, inner, bias=False) for name in "qkv"}
        parts[f"{layers}0.SelfAttention.o"] = dense(inner, width, bias=False)
        parts |= {f"{layers}{number}.layer_norm": {"weight": (width,)} for number in (0, 1)}
        gated = str(config.get("feed_forward_proj", "gated-")).startswith("gated-")
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            parts[f"{layers}1.DenseReluDense.{name}"] = dense(width, config["d_ff"], bias=False)
        parts[f"{layers}1.DenseReluDense.wo"] = dense(config["d_ff"], width, bias=False)
    return join("", parts)
