"""What is known of the configurations of transformers' encoders: CLIP's two towers, T5's encoder, the safety checker.

Names and defaults are those of transformers' configuration classes (a test compares them).
"""

from __future__ import annotations

from sdbuild.checkpoints.account.settings import ANY, BOOLEAN, COUNT, INTEGER, NUMBER, POSITIVE, TEXT, Class, Setting

_TRAINING = "acts in training alone"
_TOKENIZER = "the tokenizer's files say it"
_CALLS = "says how the library answers calls, or generates text"
_DECODER = "is the decoder's, and the encoder alone is used"
_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")

# Every configuration of transformers may have these, and those of 2022 and 2023 have most of them.
_COMMON = {
    name: Setting(ANY, None, harmless=_CALLS)
    for name in (
        "add_cross_attention", "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward",
        "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "early_stopping",
        "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id",
        "forced_eos_token_id", "id2label", "is_decoder", "is_encoder_decoder", "label2id", "length_penalty",
        "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
        "output_attentions", "output_hidden_states", "output_past", "output_scores", "prefix", "problem_type",
        "pruned_heads", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
        "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
        "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torchscript", "typical_p",
        "use_bfloat16", "use_cache",
    )
}  # fmt: skip

_TOWER = {
    "hidden_size": Setting(COUNT, 512),
    "intermediate_size": Setting(COUNT, 2048),
    "num_hidden_layers": Setting(COUNT, 12),
    "num_attention_heads": Setting(COUNT, 8),
    "hidden_act": Setting(TEXT, "quick_gelu", _ACTIVATIONS),
    "layer_norm_eps": Setting(POSITIVE, 1e-5),
    "projection_dim": Setting(COUNT, 512),
    "attention_dropout": Setting(NUMBER, 0.0, harmless=_TRAINING),
    "dropout": Setting(NUMBER, 0.0, harmless=_TRAINING),
    "initializer_range": Setting(NUMBER, 0.02, harmless=_TRAINING),
    "initializer_factor": Setting(NUMBER, 1.0, harmless=_TRAINING),
}
_NESTED = Setting(ANY, None)

CLIP_TEXT = Class(
    "CLIPTextModel",
    {
        **_COMMON,
        **_TOWER,
        "vocab_size": Setting(COUNT, 49408),
        "max_position_embeddings": Setting(COUNT, 77),
        "pad_token_id": Setting(INTEGER, 1, harmless=_TOKENIZER),
        "bos_token_id": Setting(INTEGER, 49406, harmless=_TOKENIZER),
        "eos_token_id": Setting(INTEGER, 49407),
        "text_config": _NESTED,
        "vision_config": Setting(ANY, None, harmless="is the other tower's"),
        "logit_scale_init_value": Setting(NUMBER, 2.6592, harmless=_TRAINING),
    },
)

CLIP_VISION = Class(
    "CLIPVisionModel",
    {
        **_COMMON,
        **_TOWER,
        "hidden_size": Setting(COUNT, 768),
        "intermediate_size": Setting(COUNT, 3072),
        "num_attention_heads": Setting(COUNT, 12),
        "num_channels": Setting(COUNT, 3),
        "image_size": Setting(COUNT, 224),
        "patch_size": Setting(COUNT, 32),
        "bos_token_id": Setting(INTEGER, None, harmless=_TOKENIZER),
        "eos_token_id": Setting(INTEGER, None, harmless=_TOKENIZER),
        "pad_token_id": Setting(INTEGER, None, harmless=_TOKENIZER),
    },
)

SAFETY_CHECKER = Class(
    "StableDiffusionSafetyChecker",
    {
        **_COMMON,
        "projection_dim": Setting(COUNT, 512),
        "vision_config": _NESTED,
        "vision_config_dict": _NESTED,
        "text_config": Setting(ANY, None, harmless="is the other tower's"),
        "text_config_dict": Setting(ANY, None, harmless="is the other tower's"),
        "logit_scale_init_value": Setting(NUMBER, 2.6592, harmless=_TRAINING),
        "initializer_factor": Setting(NUMBER, 1.0, harmless=_TRAINING),
    },
)

T5 = Class(
    "T5EncoderModel",
    {
        **_COMMON,
        "vocab_size": Setting(COUNT, 32128),
        "d_model": Setting(COUNT, 512),
        "d_kv": Setting(COUNT, 64),
        "d_ff": Setting(COUNT, 2048),
        "num_layers": Setting(COUNT, 6),
        "num_heads": Setting(COUNT, 8),
        "relative_attention_num_buckets": Setting(COUNT, 32),
        "relative_attention_max_distance": Setting(COUNT, 128),
        "layer_norm_epsilon": Setting(NUMBER, 1e-6),
        "feed_forward_proj": Setting(
            TEXT, "relu", ("relu", "gelu", "gated-gelu", "gated-silu", "gelu_new", "gated-gelu_new", "silu")
        ),
        "dense_act_fn": Setting(TEXT),
        "is_gated_act": Setting(BOOLEAN),
        "num_decoder_layers": Setting(INTEGER, None, harmless=_DECODER),
        "scale_decoder_outputs": Setting(BOOLEAN, None, harmless=_DECODER),
        "dropout_rate": Setting(NUMBER, 0.1, harmless=_TRAINING),
        "classifier_dropout": Setting(NUMBER, 0.0, harmless=_TRAINING),
        "initializer_factor": Setting(NUMBER, 1.0, harmless=_TRAINING),
        "pad_token_id": Setting(INTEGER, 0, harmless=_TOKENIZER),
        "eos_token_id": Setting(INTEGER, 1, harmless=_TOKENIZER),
        "n_positions": Setting(INTEGER, None, harmless="T5 has distances and no positions"),
    },
)

TOWERS = {
    "CLIPTextModel": CLIP_TEXT,
    "CLIPTextModelWithProjection": CLIP_TEXT,
    "CLIPModel": CLIP_TEXT,
    "StableDiffusionSafetyChecker": SAFETY_CHECKER,
    "T5EncoderModel": T5,
    "T5ForConditionalGeneration": T5,
    "T5Model": T5,
}
