"""Which files are taken: the least that is enough, of whatever formats and variants a checkpoint holds."""

from __future__ import annotations

import pytest

from sdbuild.checkpoints.files import CheckpointFilesError, select_files

CONFIG = "unet/config.json"
WHOLE = "unet/diffusion_pytorch_model.safetensors"
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
PICKLE = "unet/diffusion_pytorch_model.bin"
HALF_PICKLE = "unet/diffusion_pytorch_model.fp16.bin"
NON_EMA = "unet/diffusion_pytorch_model.non_ema.safetensors"
SHARDS = [f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
SHARD_INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"
NEW_HALF_SHARDS = [f"unet/diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
OLD_HALF_SHARDS = [f"unet/diffusion_pytorch_model-0000{i}-of-00002.fp16.safetensors" for i in (1, 2)]
HALF_SHARD_INDEX = "unet/diffusion_pytorch_model.safetensors.index.fp16.json"

CASES: list[tuple[str, list[str], str, list[str]]] = [
    ("safetensors before pickles", [WHOLE, PICKLE], "float32", [WHOLE]),
    ("a pickle where nothing else is", [PICKLE, HALF_PICKLE], "float32", [PICKLE]),
    ("half-precision safetensors before a pickle", [HALF, PICKLE], "float32", [HALF]),
    ("full precision when asked", [HALF, WHOLE], "float32", [WHOLE]),
    ("half precision is enough for float16", [HALF, WHOLE, PICKLE], "float16", [HALF]),
    ("full precision where there is no half", [WHOLE, HALF_PICKLE], "float16", [WHOLE]),
    ("training leftovers last", [NON_EMA, WHOLE], "float32", [WHOLE]),
    ("training leftovers at all", [NON_EMA], "float32", [NON_EMA]),
    ("shards with their index", [*SHARDS, SHARD_INDEX, PICKLE], "float32", [*SHARDS, SHARD_INDEX]),
    ("one file before shards", [*SHARDS, SHARD_INDEX, WHOLE], "float32", [WHOLE]),
    ("incomplete shards are passed over", [SHARDS[0], SHARD_INDEX, PICKLE], "float32", [PICKLE]),
    (
        "shards of a variant",
        [*NEW_HALF_SHARDS, HALF_SHARD_INDEX, WHOLE],
        "float16",
        [*NEW_HALF_SHARDS, HALF_SHARD_INDEX],
    ),
    ("shards of a variant, named as before", [*OLD_HALF_SHARDS, WHOLE], "float16", OLD_HALF_SHARDS),
]


@pytest.mark.parametrize(
    ("names", "precision", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_weights(names: list[str], precision: str, expected: list[str]) -> None:
    others = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors", "v1-5-pruned.safetensors", "unet/notes.txt"]
    chosen = select_files("unet", [CONFIG, *names, *others], precision=precision)
    assert sorted(chosen.values()) == sorted([CONFIG, *expected])
    assert all(source == f"unet/{target}" for target, source in chosen.items())


def test_the_card_travels_with_a_model() -> None:
    chosen = select_files("unet", [CONFIG, WHOLE, "README.md", "LICENSE.md", "unet/README.txt", "vae/LICENSE"])
    assert {"README.md", "LICENSE.md"} <= set(chosen)
    assert "LICENSE" not in chosen


def test_a_controlnet_lies_at_the_root() -> None:
    names = ["config.json", "diffusion_pytorch_model.safetensors", "README.md", "images/a.png", "control.ckpt"]
    assert sorted(select_files("controlnet", names)) == [
        "README.md",
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([WHOLE], "no unet/config.json, which unet needs"),
        ([CONFIG], "no weights for unet: no .*safetensors and no .*bin in unet/"),
        ([CONFIG, SHARDS[0], SHARD_INDEX], "model-00002-of-00002.safetensors missing"),
        ([CONFIG, SHARD_INDEX], "the shards of diffusion_pytorch_model.safetensors.index.json missing"),
    ],
)
def test_what_is_missing_is_named(names: list[str], message: str) -> None:
    with pytest.raises(CheckpointFilesError, match=message):
        select_files("unet", names)


def test_tokenizers() -> None:
    both = ["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"]
    assert sorted(select_files("tokenizer", [*both, "tokenizer/other.bin"]).values()) == sorted(both)
    assert select_files("tokenizer", ["tokenizer/tokenizer.json"])
    with pytest.raises(CheckpointFilesError, match=r"no tokenizer/merges.txt"):
        select_files("tokenizer", ["tokenizer/vocab.json"])


def test_the_index_is_every_configuration_and_the_card() -> None:
    names = [
        "model_index.json",
        CONFIG,
        WHOLE,
        "scheduler/scheduler_config.json",
        "README.md",
        "LICENSE",
        "a/b/config.json",
    ]
    expected = ["model_index.json", CONFIG, "scheduler/scheduler_config.json", "README.md", "LICENSE"]
    assert sorted(select_files("index", names)) == sorted(expected)
