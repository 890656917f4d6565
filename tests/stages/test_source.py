"""The source stage: the least files that are enough, through the real Hub client, with every failure explained."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdbuild.builtin import tiny
from sdbuild.checkpoints import offline
from sdbuild.checkpoints.hub import Hub
from sdbuild.checkpoints.hub_errors import HubError
from sdbuild.paths import PathError
from sdbuild.stages import source
from tests.stages.hub_server import COMMIT, LATER, FakeHub

WEIGHTS = bytes(range(256)) * 4000
FILES = {
    "README.md": b"---\nlicense: openrail\n---\n",
    "model_index.json": b"{}",
    "unet/config.json": b'{"in_channels": 4}',
    "unet/diffusion_pytorch_model.safetensors": WEIGHTS,
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"vae",
    "sd-whole.safetensors": b"all in one",
}


def ignore(fraction: float, message: str) -> None:
    assert 0 <= fraction <= 1
    assert message


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fake = FakeHub(dict(FILES))
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Hub.__init__, "__defaults__", (None, None, (0.0, 0.0), lambda _: None))
    # The client's own pauses between attempts would make the tests slow, not different.
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    yield fake
    fake.close()


def fetch(
    tmp_path: Path,
    component: str = "unet",
    revision: str | None = COMMIT,
    version: str = "owner/model",
    **more: Any,
) -> Path:
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    source.run({}, {"version": version, "revision": revision, "component": component} | more, out, ignore)
    return out


def listing(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_only_the_needed_files_are_downloaded(server: FakeHub, tmp_path: Path) -> None:
    out = fetch(tmp_path)
    assert listing(out) == ["README.md", "config.json", "diffusion_pytorch_model.safetensors"]
    assert (out / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    assert server.downloads() == {"README.md", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"}


def test_the_index_brings_the_model_card(server: FakeHub, tmp_path: Path) -> None:
    assert {"README.md", "model_index.json", "unet/config.json"} <= set(listing(fetch(tmp_path, "index")))


def test_a_second_build_transfers_nothing(server: FakeHub, tmp_path: Path) -> None:
    fetch(tmp_path)
    server.requests.clear()
    fetch(tmp_path)
    assert not server.downloads()


def test_the_default_branch_is_resolved_to_a_commit(server: FakeHub, tmp_path: Path) -> None:
    fetch(tmp_path, revision=None)
    assert server.downloads(), "files must be asked for at the commit, not at the branch"


def test_a_cut_transfer_is_resumed(server: FakeHub, tmp_path: Path) -> None:
    server.cut_after = 300_000
    out = fetch(tmp_path)
    assert (out / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    assert server.ranges == ["bytes=300000-"]


@pytest.mark.parametrize("kind", ["info", "head", "get"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again(server: FakeHub, tmp_path: Path, kind: str, status: int) -> None:
    server.failures[kind] = [status]
    assert listing(fetch(tmp_path))


FAILURES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("repository", {}, {"version": "owner/unknown"}, "no such repository, or it is private.*HF_TOKEN"),
    ("revision", {}, {"revision": "f" * 40}, "no such revision.*/owner/model/commits"),
    ("name", {}, {"version": "owner/model/unet"}, "no name of a repository"),
    ("component", {}, {"component": "text_encoder"}, "owner/model@0123456789ab.*text_encoder/config.json"),
    ("token", {"refuse": (401, {})}, {}, "HTTP 401"),
    ("gated", {"refuse": (403, {"X-Error-Code": "GatedRepo"})}, {}, "Accept its conditions at .*owner/model.*HF_TOKEN"),
    ("forbidden", {"refuse": (403, {})}, {}, "may not read this repository"),
    ("limit", {"refuse": (429, {})}, {}, "too many requests"),
    ("down", {"failures": {"info": [500] * 9}}, {}, "the Hub has a problem .HTTP 500."),
    ("down-later", {"refuse": (503, {})}, {}, "HTTP 503.*what was transferred is kept"),
    ("removed", {"refuse": (404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})}, {}, "not in the repos"),
    ("hash", {"lie": bytes(len(WEIGHTS))}, {}, "hash is not the one that the Hub"),
    ("size", {"lie": b"short"}, {}, "transfer failed|hash is not"),
]


@pytest.mark.parametrize(("server_is", "asked", "message"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_failures_say_what_to_do(
    server: FakeHub, tmp_path: Path, server_is: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    for name, value in server_is.items():
        setattr(server, name, value)
    with pytest.raises((HubError, source.SourceError), match=f"(?s){message}"):
        fetch(tmp_path, **asked)


def test_a_gated_repository_is_read_with_the_users_token(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "hf_mine"
    with pytest.raises(
        HubError, match=r"gated \(HTTP 401\). Accept its conditions at https://huggingface.co/owner/model"
    ):
        fetch(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError, match="gated"):
        fetch(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert listing(fetch(tmp_path))


def test_branches_tags_and_commits(server: FakeHub, tmp_path: Path) -> None:
    later = FILES | {"unet/config.json": b'{"in_channels": 9}'}
    server.commits[LATER] = later
    server.branches |= {"v2": LATER, "fp16/test": LATER}
    for revision, content in ((None, 4), ("main", 4), (COMMIT, 4), ("v2", 9), ("fp16/test", 9), (LATER, 9)):
        config = fetch(tmp_path, revision=revision) / "config.json"
        assert config.read_bytes() == b'{"in_channels": %d}' % content


def test_sharded_weights_of_a_variant(server: FakeHub, tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {}}).encode()
    stem = "unet/diffusion_pytorch_model"
    server.files = {
        "unet/config.json": b"{}",
        f"{stem}.fp16.safetensors.index.json": index,
        f"{stem}.fp16-00001-of-00002.safetensors": b"first",
        f"{stem}.fp16-00002-of-00002.safetensors": b"second",
        f"{stem}.safetensors.index.json": index,
        f"{stem}-00001-of-00002.safetensors": WEIGHTS,
        f"{stem}-00002-of-00002.safetensors": WEIGHTS,
    }
    out = tmp_path / "half"
    out.mkdir()
    parameters = {"version": "owner/model", "revision": COMMIT, "component": "unet", "precision": "float16"}
    source.run({}, parameters, out, ignore)
    assert [name for name in listing(out) if "fp16" in name] == [name for name in listing(out) if name != "config.json"]
    assert len(listing(out)) == 4
    assert sum("fp16" in name for name in listing(fetch(tmp_path))) == 0


def test_a_single_file_of_a_repository(server: FakeHub, tmp_path: Path) -> None:
    out = tmp_path / "file"
    out.mkdir()
    parameters = {"version": "owner/model", "revision": COMMIT, "component": "checkpoint"}
    source.run({}, parameters | {"file": "sd-whole.safetensors"}, out, ignore)
    assert listing(out) == ["README.md", "sd-whole.safetensors"]
    with pytest.raises(source.SourceError, match=r"there is no other.ckpt; there are sd-whole.safetensors"):
        source.run({}, parameters | {"file": "other.ckpt"}, out, ignore)


def test_progress_is_told_while_a_file_arrives(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdbuild.checkpoints.hub._REPORT_SECONDS", 0.01)
    server.pause = 0.3
    told: list[tuple[float, str]] = []
    out = tmp_path / "out"
    out.mkdir()
    parameters = {"version": "owner/model", "revision": COMMIT, "component": "unet"}
    source.run({}, parameters, out, lambda fraction, message: told.append((fraction, message)))
    amounts = [fraction for fraction, message in told if message.startswith("unet/diffusion_pytorch_model")]
    assert amounts == sorted(amounts)
    assert any(0.2 < fraction < 0.9 for fraction in amounts)
    assert told[-1] == (1.0, "unet of owner/model")


def test_a_full_disk_is_named(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(HubError, match=r"disk of the Hub cache is full.*HF_HUB_CACHE"):
        fetch(tmp_path)


def test_a_wrong_file_is_not_kept(server: FakeHub, tmp_path: Path) -> None:
    server.lie = bytes(len(WEIGHTS))
    with pytest.raises(HubError):
        fetch(tmp_path)
    server.lie = None
    assert (fetch(tmp_path) / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS


def unused_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_without_network_what_the_cache_holds_is_no_answer_for_the_whole_repository(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", unused_endpoint())
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE=1.*a key of its own"):
        fetch(tmp_path)
    with pytest.raises(source.SourceError, match=r"cannot be reached.*vae/config.json"):
        fetch(tmp_path, "vae")


def test_a_damaged_file_of_the_hubs_cache_is_left_there_and_not_taken(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(tmp_path)
    (weights,) = {path for path in (tmp_path / "hub").rglob("blobs/*") if path.stat().st_size == len(WEIGHTS)}
    weights.chmod(0o644)
    weights.write_bytes(damaged := WEIGHTS[:-1] + b"?")
    assert (fetch(tmp_path) / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    assert weights.read_bytes() == damaged, "the cache is the user's"


def test_offline_a_damaged_file_is_refused_by_the_hash_in_its_name(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(tmp_path)
    parameters = {"version": "owner/model", "revision": COMMIT, "component": "unet"}
    chosen = offline.choice("owner/model", parameters)
    assert chosen["revision"] == COMMIT
    assert chosen["files"]["diffusion_pytorch_model.safetensors"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    monkeypatch.setenv("HF_ENDPOINT", unused_endpoint())
    assert (fetch(tmp_path, **chosen) / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    (weights,) = {path for path in (tmp_path / "hub").rglob("blobs/*") if path.stat().st_size == len(WEIGHTS)}
    weights.chmod(0o644)
    weights.write_bytes(WEIGHTS[:-1] + b"?")
    assert offline.choice("owner/model", parameters) == chosen, "a name is what it was"
    with pytest.raises(HubError, match=r"copy in the Hub cache is damaged.*nothing was removed"):
        fetch(tmp_path, **chosen)
    assert weights.exists()


def test_offline_another_choice_has_another_key(server: FakeHub, tmp_path: Path) -> None:
    """A cache that holds the half-precision variant alone gives that; with the Hub it would be the whole one."""
    half = WEIGHTS[:1000]
    server.files["unet/diffusion_pytorch_model.fp16.safetensors"] = half
    fetch(tmp_path, precision="float16")
    parameters = {"version": "owner/model", "revision": COMMIT, "component": "unet", "precision": "float32"}
    chosen = offline.choice("owner/model", parameters)
    assert {file["name"] for file in chosen["files"].values()} >= {"unet/diffusion_pytorch_model.fp16.safetensors"}
    assert offline.choice("owner/model", parameters | {"component": "vae"}) == {}


def test_a_lock_with_a_wrong_hash_removes_nothing(server: FakeHub, tmp_path: Path) -> None:
    fetch(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    name = "unet/config.json"
    locked = {"config.json": {"name": name, "size": len(server.files[name]), "sha256": "0" * 64}}
    with pytest.raises(HubError, match="Nothing was taken"):
        fetch(tmp_path, revision=COMMIT, files=locked)
    assert {path: path.read_bytes() for path in (tmp_path / "hub").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("target", ["/tmp/x", "../x", "a/../../x", "C:/x", "a\\..\\x", "NUL", ""])
def test_a_destination_outside_is_never_written(server: FakeHub, tmp_path: Path, target: str) -> None:
    name = "unet/config.json"
    content = server.files[name]
    locked = {target: {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    with pytest.raises(PathError):
        fetch(tmp_path, revision=COMMIT, files=locked)


def test_names_in_a_listing_that_lead_out_are_never_taken(server: FakeHub, tmp_path: Path) -> None:
    server.files["../../unet/config.json"] = b"{}"
    server.files["/etc/cron.d/x"] = b"x"
    repository = Hub(server.endpoint, tmp_path / "hub").repository("owner/model")
    assert {file.name for file in repository.files} == {
        name for name in server.files if not name.startswith((".", "/"))
    }


def test_waiting_for_the_hub_is_said(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.failures["info"] = [429]
    server.retry_after = "7"
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    said: list[str] = []
    Hub(server.endpoint, tmp_path / "hub", say=said.append).repository("owner/model")
    assert waited == [7.0]
    assert said == ["owner/model: too many requests (HTTP 429); waits 7 s before it asks again"]
    server.failures["info"] = [429]
    server.retry_after = "3600"
    with pytest.raises(HubError, match=r"too many requests.*It asks to wait 3600 s"):
        Hub(server.endpoint, tmp_path / "hub").repository("owner/model")


def test_without_network_and_cache(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", unused_endpoint())
    with pytest.raises(HubError, match=r"cannot be reached.*source=PATH"):
        fetch(tmp_path)


@pytest.mark.parametrize(
    "component", ["text_encoder", "unet", "vae", "safety_checker", "tokenizer", "scheduler", "index"]
)
def test_builtin_checkpoints(tmp_path: Path, component: str) -> None:
    tiny.generate("tiny-sd", tmp_path / "whole")
    out = fetch(tmp_path, component, None, "builtin:tiny-sd")
    whole = tmp_path / "whole"
    places = {name: whole / component / name for name in listing(out)} | {"README.md": whole / "README.md"}
    if component == "index":
        places = {name: whole / name for name in listing(out)}
    assert listing(out)
    assert all((out / name).read_bytes() == places[name].read_bytes() for name in listing(out))


def test_a_builtin_controlnet(tmp_path: Path) -> None:
    assert "diffusion_pytorch_model.safetensors" in listing(
        fetch(tmp_path, "controlnet", None, "builtin:tiny-controlnet")
    )


def test_a_directory_gives_the_same_files_without_copies(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    for name, content in FILES.items():
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_bytes(content)
    out = fetch(tmp_path, "unet", None, str(checkpoint))
    assert listing(out) == ["README.md", "config.json", "diffusion_pytorch_model.safetensors"]
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.samefile(out / "diffusion_pytorch_model.safetensors")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(source.SourceError, match="no such directory"):
        fetch(tmp_path, "unet", None, str(tmp_path / "nowhere"))
