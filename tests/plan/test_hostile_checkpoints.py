"""Checkpoints and recipes that mean harm, or are merely broken: words and status 2 at once, and nothing else."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.tokenizer import read_tokenizer
from sdbuild.bundle.vocabulary import check_ids
from sdbuild.checkpoints.card import read_card
from sdbuild.documents import DocumentError, parse_json, read_bytes

Harm = Callable[[Path], object]


def link(name: str, target: str) -> Harm:
    def harm(checkpoint: Path) -> None:
        path = checkpoint / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)

    return harm


def pipe(name: str) -> Harm:
    def harm(checkpoint: Path) -> None:
        (checkpoint / name).unlink(missing_ok=True)
        os.mkfifo(checkpoint / name)

    return harm


def text(name: str, content: str | bytes) -> Harm:
    return lambda checkpoint: (checkpoint / name).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


DEEP = "[" * 100_000 + "]" * 100_000
HARMS: dict[str, tuple[Harm, str]] = {
    "a card that is a link": (link("README.md", "/etc/passwd"), "is a link out of the checkpoint, to /etc/passwd"),
    "a license that is a link": (link("LICENSE", "/etc/passwd"), "is a link out of the checkpoint"),
    "a configuration that is a link": (link("unet/config.json", "/etc/hostname"), "is a link out of the checkpoint"),
    "weights that are a device": (link("unet/diffusion_pytorch_model.safetensors", "/dev/zero"), "not a regular file"),
    "a card that is a device": (link("README.md", "/dev/zero"), "is not a regular file"),
    "a link to nothing": (link("unet/config.json", "/nowhere"), "is a link that leads nowhere"),
    "a link to itself": (link("unet/config.json", "config.json"), "is a link that leads nowhere"),
    "a pipe for a configuration": (pipe("vae/config.json"), "is not a regular file"),
    "a pipe for weights": (pipe("vae/diffusion_pytorch_model.safetensors"), "is not a regular file"),
    "a pipe for the index": (pipe("model_index.json"), "is not a regular file"),
    "deep JSON": (text("unet/config.json", DEEP), "nested more than"),
    "a deep index": (text("model_index.json", '{"a": ' + DEEP + "}"), "nested more than"),
    "no number": (text("unet/config.json", '{"norm_eps": NaN}'), "holds NaN"),
    "half a character": (text("unet/config.json", '{"_class_name": "\\ud800"}'), "half of a surrogate pair"),
    "a deep header": (
        text("vae/diffusion_pytorch_model.safetensors", len(DEEP).to_bytes(8, "little") + DEEP.encode()),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("name", HARMS)
@pytest.mark.parametrize("command", ["plan", "check", "run"])
def test_a_harmful_checkpoint_is_refused_at_once(workspace: Any, name: str, command: str) -> None:
    harm, said = HARMS[name]
    harm(workspace.root / "checkpoint")
    ran = workspace(command, "recipe=phone", "source=checkpoint")
    assert (ran.status, ran.actions) == (2, [])
    assert said in ran.err
    assert "root:" not in ran.err, "nothing of a file that was linked to is shown"


def test_links_within_a_checkpoint_and_within_the_hubs_cache_are_followed(workspace: Any) -> None:
    checkpoint = workspace.root / "checkpoint"
    (checkpoint / "unet/config.json").rename(checkpoint / "unet/real.json")
    (checkpoint / "unet/config.json").symlink_to("real.json")
    assert workspace("plan", "recipe=phone", "source=checkpoint").status == 0
    repository = workspace.root / "hub/models--a--b"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    (repository / "blobs").mkdir()
    checkpoint.rename(snapshot)
    weights = snapshot / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(repository / "blobs" / ("1" * 64))
    weights.symlink_to(f"../../../blobs/{'1' * 64}")
    assert workspace("plan", "recipe=phone", f"source={snapshot}").status == 0


VALUES: list[tuple[str, str, Any]] = [
    ("unet", "block_out_channels", [0]),
    ("unet", "block_out_channels", [320, "x"]),
    ("unet", "block_out_channels", [10**30]),
    ("unet", "layers_per_block", -1),
    ("unet", "cross_attention_dim", "wide"),
    ("unet", "attention_head_dim", 0),
    ("unet", "in_channels", 1e9),
    ("unet", "time_cond_proj_dim", "NaN"),
    ("unet", "norm_eps", -1),
    ("vae", "scaling_factor", "x"),
    ("vae", "scaling_factor", 0),
    ("vae", "scaling_factor", -0.2),
    ("vae", "scaling_factor", 1e300),
    ("vae", "force_upcast", "x"),
    ("vae", "latent_channels", True),
    ("text_encoder", "hidden_size", -768),
    ("text_encoder", "num_hidden_layers", [12]),
    ("text_encoder", "vocab_size", 2**40),
    ("scheduler", "beta_start", "0.001"),
    ("scheduler", "beta_end", 3),
    ("scheduler", "num_train_timesteps", 0),
    ("scheduler", "trained_betas", ["x"]),
]


@pytest.mark.parametrize(("folder", "name", "value"), VALUES)
def test_no_value_that_is_read_is_beyond_what_a_network_has(workspace: Any, folder: str, name: str, value: Any) -> None:
    path = workspace.root / "checkpoint" / folder
    path /= "scheduler_config.json" if folder == "scheduler" else "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    ran = workspace("plan", "recipe=phone", "source=checkpoint")
    assert ran.status == 2
    assert f"`{name}`" in ran.err
    assert "must be" in ran.err
    assert str(path.name) in ran.err


@pytest.mark.parametrize(("folder", "held"), [("unet", "AutoencoderKL"), ("vae", "UNet2DConditionModel")])
def test_an_index_that_lists_other_networks_than_the_folders_hold(workspace: Any, folder: str, held: str) -> None:
    path = workspace.root / "checkpoint" / folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": held}))
    ran = workspace("plan", "recipe=phone", "source=checkpoint")
    assert ran.status == 2
    assert f"is a {held}'s, and model_index.json lists a" in ran.err


CARDS = {
    "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "license: *i\n",
    "deep": "license: " + "[" * 5000 + "]" * 5000,
    "long": "license: mit\n" + "x: y\n" * 100_000,
    "a tag": "license: !!python/object/apply:os.system [true]",
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_would_take_all_memory_says_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{CARDS[name]}\n---\n")
    (tmp_path / "LICENSE").symlink_to("/dev/zero")
    assert read_card(tmp_path).license == ""


def test_pipes_and_devices_are_no_documents(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises((DocumentError, IsADirectoryError)):
            read_bytes(path)
    (tmp_path / "long").write_bytes(bytes(101))
    with pytest.raises(DocumentError, match="101 bytes, more than the 100"):
        read_bytes(tmp_path / "long", 100)
    with pytest.raises(DocumentError, match="'a' twice"):
        parse_json(b'{"a": 1, "a": 2}', unique=True)
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}, "as diffusers reads it"
    assert parse_json(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


SECRET = "password: hunter2\nother: [\n"


@pytest.mark.parametrize("name", ["secret", "secret.yaml", "secret.json"])
def test_extends_shows_nothing_of_a_file_that_is_no_recipe(workspace: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / name).write_text(SECRET)
    workspace.recipe(extends=str(tmp_path / "elsewhere" / name))
    for command in ("plan", "check", "run"):
        ran = workspace(command, "recipe=phone")
        assert ran.status == 2
        assert "hunter2" not in ran.err + ran.out
        assert "password" not in ran.err + ran.out


def test_what_editors_leave_beside_recipes_is_no_recipe(workspace: Any) -> None:
    recipes = workspace.root / "recipes"
    (recipes / ".#phone.yaml").symlink_to("user@host.123:456")
    (recipes / "._phone.yaml").write_bytes(b"\0\5\x16\7")
    (recipes / "#phone.yaml#").write_text("name: [")
    (recipes / "folder.yaml").mkdir()
    for command in (("plan", "recipe=phone"), ("check",), ("recipes",), ("recipe=phone", "source:index")):
        ran = workspace(*command)
        assert ran.status == 0, ran.err


def test_a_broken_recipe_leaves_the_plans_of_others_alone(workspace: Any) -> None:
    recipes = workspace.root / "recipes"
    (recipes / "broken.yaml").write_text("name: [")
    (recipes / "latin.yaml").write_bytes(b"name: \xff")
    (recipes / "unreadable.yaml").write_text("name: unreadable")
    (recipes / "unreadable.yaml").chmod(0)
    os.mkfifo(recipes / "pipe.yaml")
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 0, ran.err
    assert workspace("check").status == 2


def tokenizer(folder: Path, vocabulary: bytes, merges: bytes) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_bytes(vocabulary)
    (folder / "merges.txt").write_bytes(merges)
    return read_tokenizer(folder)


def test_a_vocabulary_is_read_as_the_tokenizers_library_reads_it(tmp_path: Path) -> None:
    from tokenizers.models import BPE

    plain = b'{"a": 0, "b": 1, "ab": 2}', b"#version: 0.2\na b\n"
    windows = plain[0].replace(b", ", b",\r\n"), plain[1].replace(b"\n", b"\r\n")
    found = tokenizer(tmp_path / "windows", *windows)
    assert "\r" not in "".join(found)
    theirs = BPE.read_file(str(tmp_path / "windows/vocab.json"), str(tmp_path / "windows/merges.txt"))
    assert (json.loads(found[0]), found[1].split()[2:]) == (theirs[0], ["a", "b"])
    for vocabulary, merges in (
        (b"\xef\xbb\xbf" + plain[0], plain[1]),
        (plain[0], b"\xef\xbb\xbf" + plain[1]),
        (b'{"a": 0, "a": 1}', plain[1]),
        (b'{"\\ud800": 0}', plain[1]),
        (DEEP.encode(), plain[1]),
    ):
        with pytest.raises(BundleError, match="no byte-pair encoding"):
            tokenizer(tmp_path / "other", vocabulary, merges)


@pytest.mark.parametrize(
    ("vocabulary", "merges", "said"),
    [
        (b'{"a": 0, "a": 1}', b"", "'a' twice"),
        (b'{"a": "0"}', b"", "an id that is no number from 0"),
        (b'{"a": 0}', b"\xff\n", "is not UTF-8"),
        (b'{"a": 0}', b"a b\n", "line 1 is no two tokens"),
    ],
)
def test_a_tokenizer_that_its_library_would_not_take(
    workspace: Any, vocabulary: bytes, merges: bytes, said: str
) -> None:
    folder = workspace.root / "checkpoint/tokenizer"
    (folder / "vocab.json").write_bytes(vocabulary)
    (folder / "merges.txt").write_bytes(merges)
    ran = workspace("plan", "recipe=phone", "source=checkpoint")
    assert ran.status == 2
    assert said in ran.err


def test_ids_beyond_the_text_encoders_table(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 9}')
    check_ids(tmp_path, {"vocab_size": 10})
    check_ids(tmp_path, {})
    with pytest.raises(BundleError, match="'b' has the id 9, and the text encoder's table has 9 rows"):
        check_ids(tmp_path, {"vocab_size": 9})
