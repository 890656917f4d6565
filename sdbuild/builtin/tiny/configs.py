"""The configurations of the tiny checkpoints: SD 1.5, SD 2.1, SDXL and SD 3 with far fewer and narrower layers."""

from __future__ import annotations

from typing import Any

from sdbuild.builtin.tiny import unigram
from sdbuild.builtin.tiny.tokenizer import END, START, VOCABULARY_SIZE

Config = dict[str, Any]

# Nothing of these files may depend on what is installed, so the version that a library would write is fixed.
_DIFFUSERS = "0.29.0"
_TRANSFORMERS = "4.41.0"


def _unet(**changes: Any) -> Config:
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": _DIFFUSERS,
        "act_fn": "silu",
        "attention_head_dim": 4,
        "block_out_channels": [32, 64, 64],
        "center_input_sample": False,
        "cross_attention_dim": 64,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 1,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 8,
        "out_channels": 4,
        "sample_size": 16,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    } | changes


def _vae(**changes: Any) -> Config:
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": _DIFFUSERS,
        "act_fn": "silu",
        "block_out_channels": [32, 32, 64, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "out_channels": 3,
        "sample_size": 128,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    } | changes


def _text(architecture: str = "CLIPTextModel", **changes: Any) -> Config:
    return {
        "architectures": [architecture],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 64,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 1,
        "projection_dim": 64,
        "torch_dtype": "float32",
        "transformers_version": _TRANSFORMERS,
        "vocab_size": VOCABULARY_SIZE,
    } | changes


def _scheduler(name: str, **changes: Any) -> Config:
    return {
        "_class_name": name,
        "_diffusers_version": _DIFFUSERS,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "trained_betas": None,
    } | changes


# The widths of the text, 768 + 1280 and 4096, of the pooled text, 2048, and of the latents, 16, are those of every
# SD 3: the Swift package counts on them.
_TRANSFORMER: Config = {
    "_class_name": "SD3Transformer2DModel",
    "_diffusers_version": _DIFFUSERS,
    "attention_head_dim": 16,
    "caption_projection_dim": 64,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 4,
    "num_layers": 3,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 768 + 1280,
    "pos_embed_max_size": 24,
    "sample_size": 32,
}

_T5: Config = {
    "architectures": ["T5EncoderModel"],
    "d_ff": 64,
    "d_kv": 8,
    "d_model": 4096,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 2,
    "num_heads": 4,
    "num_layers": 2,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": _TRANSFORMERS,
    "use_cache": True,
    "vocab_size": unigram.VOCABULARY_SIZE,
}

_SAFETY_CHECKER: Config = {
    "architectures": ["StableDiffusionSafetyChecker"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 32,
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "model_type": "clip_text_model",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": VOCABULARY_SIZE,
    },
    "torch_dtype": "float32",
    "transformers_version": _TRANSFORMERS,
    "vision_config": {
        "attention_dropout": 0.0,
        "hidden_act": "quick_gelu",
        "hidden_size": 64,
        "image_size": 224,
        "intermediate_size": 128,
        "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model",
        "num_attention_heads": 4,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": 32,
        "projection_dim": 32,
    },
}

FEATURE_EXTRACTOR: Config = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}

_CONTROLNET: Config = {
    name: value
    for name, value in _unet(
        _class_name="ControlNetModel",
        conditioning_embedding_out_channels=[16, 16, 32, 32],
        controlnet_conditioning_channel_order="rgb",
        global_pool_conditions=False,
    ).items()
    if name not in ("center_input_sample", "out_channels", "sample_size", "up_block_types")
}


def tokenizer(padding: str = END) -> dict[str, Config]:
    """The two small configuration files beside ``vocab.json`` and ``merges.txt``, by name."""
    return {
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "bos_token": START,
            "do_lower_case": True,
            "eos_token": END,
            "errors": "replace",
            "model_max_length": 77,
            "pad_token": padding,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": END,
        },
        "special_tokens_map.json": {"bos_token": START, "eos_token": END, "pad_token": padding, "unk_token": END},
    }


def _index(pipeline: str, **parts: list[str | None]) -> Config:
    diffusers = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    return {"_class_name": pipeline, "_diffusers_version": _DIFFUSERS, **diffusers, **parts}


# A pipeline is its folders' configurations by name ("" is the checkpoint's own folder); a tokenizer has its padding
# token only.
PIPELINES: dict[str, dict[str, Config]] = {
    "tiny-sd": {
        "": _index(
            "StableDiffusionPipeline",
            scheduler=["diffusers", "PNDMScheduler"],
            safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
            feature_extractor=["transformers", "CLIPImageProcessor"],
        ),
        "text_encoder": _text(),
        "tokenizer": {"padding": END},
        "unet": _unet(),
        "vae": _vae(),
        "scheduler": _scheduler("PNDMScheduler", clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True),
        "safety_checker": _SAFETY_CHECKER,
        "feature_extractor": FEATURE_EXTRACTOR,
    },
    "tiny-sd2": {
        "": _index(
            "StableDiffusionPipeline",
            scheduler=["diffusers", "DDIMScheduler"],
            safety_checker=[None, None],
            feature_extractor=["transformers", "CLIPImageProcessor"],
        )
        | {"requires_safety_checker": False},
        "text_encoder": _text(hidden_act="gelu", hidden_size=96, intermediate_size=192, projection_dim=48),
        "tokenizer": {"padding": "!"},
        "unet": _unet(
            attention_head_dim=[2, 4, 8],
            cross_attention_dim=96,
            dual_cross_attention=False,
            num_class_embeds=None,
            only_cross_attention=False,
            upcast_attention=True,
            use_linear_projection=True,
        ),
        "vae": _vae(),
        "scheduler": _scheduler(
            "DDIMScheduler", clip_sample=False, prediction_type="v_prediction", set_alpha_to_one=False
        ),
        "feature_extractor": FEATURE_EXTRACTOR,
    },
    "tiny-sdxl": {
        "": _index(
            "StableDiffusionXLPipeline",
            scheduler=["diffusers", "EulerDiscreteScheduler"],
            text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
            tokenizer_2=["transformers", "CLIPTokenizer"],
        )
        | {"force_zeros_for_empty_prompt": True},
        "text_encoder": _text(),
        "text_encoder_2": _text(
            "CLIPTextModelWithProjection",
            hidden_act="gelu",
            hidden_size=96,
            intermediate_size=192,
            projection_dim=96,
        ),
        "tokenizer": {"padding": END},
        "tokenizer_2": {"padding": "!"},
        "unet": _unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            attention_head_dim=[2, 4, 8],
            cross_attention_dim=64 + 96,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            projection_class_embeddings_input_dim=6 * 8 + 96,
            transformer_layers_per_block=[1, 1, 2],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            use_linear_projection=True,
        ),
        "vae": _vae(force_upcast=True, scaling_factor=0.13025),
        "scheduler": _scheduler(
            "EulerDiscreteScheduler",
            interpolation_type="linear",
            timestep_spacing="leading",
            use_karras_sigmas=False,
        ),
    },
    "tiny-sd3": {
        "": {
            name: value
            for name, value in _index(
                "StableDiffusion3Pipeline",
                scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"],
                text_encoder=["transformers", "CLIPTextModelWithProjection"],
                text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
                text_encoder_3=["transformers", "T5EncoderModel"],
                tokenizer_2=["transformers", "CLIPTokenizer"],
                tokenizer_3=["transformers", "T5TokenizerFast"],
                transformer=["diffusers", "SD3Transformer2DModel"],
            ).items()
            if name != "unet"
        },
        "text_encoder": _text(
            "CLIPTextModelWithProjection", hidden_size=768, num_attention_heads=12, projection_dim=768
        ),
        "text_encoder_2": _text(
            "CLIPTextModelWithProjection",
            hidden_act="gelu",
            hidden_size=1280,
            num_attention_heads=20,
            projection_dim=1280,
        ),
        "text_encoder_3": _T5,
        "tokenizer": {"padding": END},
        "tokenizer_2": {"padding": "!"},
        "tokenizer_3": {"unigram": True},
        "transformer": _TRANSFORMER,
        "vae": _vae(
            force_upcast=True,
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_post_quant_conv=False,
            use_quant_conv=False,
        ),
        "scheduler": {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "_diffusers_version": _DIFFUSERS,
            "num_train_timesteps": 1000,
            "shift": 3.0,
        },
    },
    "tiny-controlnet": {"": _CONTROLNET},
}
