"""What is known of the configurations of diffusers' networks.

Names and defaults are those of the classes' constructors in diffusers (a test compares them, so that a new setting is
noticed); what each is for stands in its documentation, https://huggingface.co/docs/diffusers/api/models/overview.
"""

from __future__ import annotations

from sdbuild.checkpoints.account.settings import (
    BOOLEAN,
    BOOLEAN_OR_BOOLEANS,
    COUNT,
    COUNT_OR_COUNTS,
    COUNTS,
    DEPTHS,
    INDICES,
    INTEGER,
    NUMBER,
    NUMBERS,
    POSITIVE,
    TEXT,
    TEXTS,
    Class,
    Setting,
)

_RECIPE_SIZE = "the recipe says the size"
_TRAINING = "acts in training alone"
_OTHER_BLOCKS = "is read by kinds of blocks that none of the families has"
_ACTIVATIONS = ("silu", "swish", "gelu", "relu", "mish")
_TEXT_DOWN, _TEXT_UP = ("CrossAttnDownBlock2D", "DownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
_FOUR_DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
_FOUR_UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
_NOISE_LEVEL = "a class, a noise level or a picture's embedding, as unCLIP and upscalers are given"

# What a UNet and a ControlNet have in common.
_FIRST_HALF = {
    "in_channels": Setting(COUNT, 4),
    "flip_sin_to_cos": Setting(BOOLEAN, True),
    "freq_shift": Setting(INTEGER, 0),
    "down_block_types": Setting(TEXTS, _FOUR_DOWN, _TEXT_DOWN),
    "only_cross_attention": Setting(BOOLEAN_OR_BOOLEANS, False),
    "block_out_channels": Setting(COUNTS, (320, 640, 1280, 1280)),
    "layers_per_block": Setting(COUNT_OR_COUNTS, 2),
    "downsample_padding": Setting(INTEGER, 1, (1,)),
    "mid_block_scale_factor": Setting(POSITIVE, 1),
    "act_fn": Setting(TEXT, "silu", _ACTIVATIONS),
    "norm_num_groups": Setting(COUNT, 32),
    "norm_eps": Setting(POSITIVE, 1e-5),
    "cross_attention_dim": Setting(COUNT_OR_COUNTS, 1280),
    "transformer_layers_per_block": Setting(DEPTHS, 1),
    "encoder_hid_dim": Setting(COUNT),
    "encoder_hid_dim_type": Setting(TEXT, None, ("text_proj",), unsupported="a projection of pictures"),
    "attention_head_dim": Setting(COUNT_OR_COUNTS, 8),
    "num_attention_heads": Setting(COUNT_OR_COUNTS),
    "use_linear_projection": Setting(BOOLEAN, False),
    "class_embed_type": Setting(TEXT, None, (), unsupported=_NOISE_LEVEL),
    "addition_embed_type": Setting(TEXT, None, ("text_time",), unsupported="a condition that no pipeline here gives"),
    "addition_time_embed_dim": Setting(COUNT),
    "num_class_embeds": Setting(COUNT, None, (), unsupported=_NOISE_LEVEL),
    "upcast_attention": Setting(
        BOOLEAN, False, harmless="keeps attention scores in half precision's range, which scaled queries do here"
    ),
    "resnet_time_scale_shift": Setting(TEXT, "default", ("default", "scale_shift")),
    "projection_class_embeddings_input_dim": Setting(COUNT),
    "addition_embed_type_num_heads": Setting(INTEGER, 64, harmless="is read for conditions that are refused"),
}
_WITHOUT_MIDDLE = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D")

UNET = Class(
    "UNet2DConditionModel",
    {
        **_FIRST_HALF,
        "sample_size": Setting(COUNT_OR_COUNTS, None, harmless=_RECIPE_SIZE),
        "out_channels": Setting(COUNT, 4),
        "center_input_sample": Setting(BOOLEAN, False),
        # Null is no default here: it means a UNet without a middle.
        "mid_block_type": Setting(TEXT, "UNetMidBlock2DCrossAttn", _WITHOUT_MIDDLE, optional=True),
        "up_block_types": Setting(TEXTS, _FOUR_UP, _TEXT_UP),
        "dropout": Setting(NUMBER, 0.0, harmless=_TRAINING),
        "reverse_transformer_layers_per_block": Setting(DEPTHS),
        "dual_cross_attention": Setting(BOOLEAN, False, (False,), optional=True, unsupported="two texts at once"),
        "resnet_skip_time_act": Setting(BOOLEAN, False, harmless=_OTHER_BLOCKS),
        "resnet_out_scale_factor": Setting(NUMBER, 1.0, harmless=_OTHER_BLOCKS),
        "time_embedding_type": Setting(TEXT, "positional", ("positional",)),
        "time_embedding_dim": Setting(COUNT, None, ()),
        "time_embedding_act_fn": Setting(TEXT, None, _ACTIVATIONS),
        "timestep_post_act": Setting(TEXT, None, _ACTIVATIONS),
        "time_cond_proj_dim": Setting(COUNT),
        "conv_in_kernel": Setting(INTEGER, 3, (3,)),
        "conv_out_kernel": Setting(INTEGER, 3, (3,)),
        "attention_type": Setting(TEXT, "default", ("default",), unsupported="GLIGEN's grounded boxes"),
        "class_embeddings_concat": Setting(BOOLEAN, False, (False,)),
        "mid_block_only_cross_attention": Setting(BOOLEAN, None, harmless=_OTHER_BLOCKS),
        "cross_attention_norm": Setting(TEXT, None, ()),
    },
    required=("block_out_channels", "cross_attention_dim", "down_block_types", "up_block_types"),
)

CONTROLNET = Class(
    "ControlNetModel",
    {
        **_FIRST_HALF,
        "conditioning_channels": Setting(COUNT, 3, (3,)),
        "mid_block_type": Setting(TEXT, "UNetMidBlock2DCrossAttn", _WITHOUT_MIDDLE, optional=True),
        "controlnet_conditioning_channel_order": Setting(TEXT, "rgb", ("rgb",), unsupported="pictures in other orders"),
        "conditioning_embedding_out_channels": Setting(COUNTS, (16, 32, 96, 256)),
        "global_pool_conditions": Setting(
            BOOLEAN, False, (False,), optional=True, unsupported="residuals averaged over the picture, as shuffle's are"
        ),
    },
    required=("block_out_channels", "cross_attention_dim", "down_block_types"),
)

VAE = Class(
    "AutoencoderKL",
    {
        "in_channels": Setting(COUNT, 3, (3,)),
        "out_channels": Setting(COUNT, 3, (3,)),
        "down_block_types": Setting(TEXTS, ("DownEncoderBlock2D",), ("DownEncoderBlock2D",)),
        "up_block_types": Setting(TEXTS, ("UpDecoderBlock2D",), ("UpDecoderBlock2D",)),
        "block_out_channels": Setting(COUNTS, (64,)),
        "layers_per_block": Setting(COUNT, 1),
        "act_fn": Setting(TEXT, "silu", _ACTIVATIONS),
        "latent_channels": Setting(COUNT, 4),
        "norm_num_groups": Setting(COUNT, 32),
        "sample_size": Setting(COUNT_OR_COUNTS, 32, harmless=_RECIPE_SIZE),
        "scaling_factor": Setting(POSITIVE, 0.18215),
        "shift_factor": Setting(NUMBER),
        "latents_mean": Setting(NUMBERS),
        "latents_std": Setting(NUMBERS),
        "force_upcast": Setting(
            BOOLEAN,
            True,
            harmless="asks pipelines in half precision to decode in float32; the recipe says the precision",
        ),
        "use_quant_conv": Setting(BOOLEAN, True),
        "use_post_quant_conv": Setting(BOOLEAN, True),
        "mid_block_add_attention": Setting(BOOLEAN, True),
    },
    required=("block_out_channels", "down_block_types", "up_block_types"),
)

TINY_VAE = Class(
    "AutoencoderTiny",
    {
        "in_channels": Setting(COUNT, 3, (3,)),
        "out_channels": Setting(COUNT, 3, (3,)),
        "encoder_block_out_channels": Setting(COUNTS, (64, 64, 64, 64)),
        "decoder_block_out_channels": Setting(COUNTS, (64, 64, 64, 64)),
        "act_fn": Setting(TEXT, "relu", ("relu",)),
        "upsample_fn": Setting(TEXT, "nearest", ("nearest",)),
        "latent_channels": Setting(COUNT, 4),
        "upsampling_scaling_factor": Setting(COUNT, 2, (2,)),
        "num_encoder_blocks": Setting(COUNTS, (1, 3, 3, 3)),
        "num_decoder_blocks": Setting(COUNTS, (3, 3, 3, 1)),
        "latent_magnitude": Setting(NUMBER, 3, harmless="is for latents that are kept as pictures"),
        "latent_shift": Setting(NUMBER, 0.5, harmless="is for latents that are kept as pictures"),
        "force_upcast": Setting(BOOLEAN, False, harmless="asks for float32; the recipe says the precision"),
        "scaling_factor": Setting(NUMBER, 1.0),
        "shift_factor": Setting(NUMBER, 0.0),
    },
)

TRANSFORMER = Class(
    "SD3Transformer2DModel",
    {
        "sample_size": Setting(COUNT, 128, harmless=_RECIPE_SIZE),
        "patch_size": Setting(COUNT, 2),
        "in_channels": Setting(COUNT, 16),
        "num_layers": Setting(COUNT, 18),
        "attention_head_dim": Setting(COUNT, 64),
        "num_attention_heads": Setting(COUNT, 18),
        "joint_attention_dim": Setting(COUNT, 4096),
        "caption_projection_dim": Setting(COUNT, 1152),
        "pooled_projection_dim": Setting(COUNT, 2048),
        "out_channels": Setting(COUNT, 16),
        "pos_embed_max_size": Setting(COUNT, 96),
        "dual_attention_layers": Setting(INDICES, ()),
        "qk_norm": Setting(TEXT, None, ("rms_norm",)),
    },
    required=("num_layers", "num_attention_heads", "pos_embed_max_size"),
)

T2I_ADAPTER = Class(
    "T2IAdapter",
    {
        "in_channels": Setting(COUNT, 3, (1, 3)),
        "channels": Setting(COUNTS, (320, 640, 1280, 1280)),
        "num_res_blocks": Setting(COUNT, 2),
        "downscale_factor": Setting(COUNT, 8),
        "adapter_type": Setting(TEXT, "full_adapter", ("full_adapter", "light_adapter", "full_adapter_xl")),
    },
)

NETWORKS = {known.name: known for known in (UNET, CONTROLNET, VAE, TINY_VAE, TRANSFORMER, T2I_ADAPTER)}
