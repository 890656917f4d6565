"""`doit lock` against a Hub on localhost: what it pins, what a build with a lock takes, and how drift is told."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdbuild.checkpoints.hub import Hub
from sdbuild.checkpoints.hub_errors import HubError
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from sdbuild.stages import source
from tests.plan.fakes import CONFIGS
from tests.stages.hub_server import COMMIT, LATER, FakeHub

WEIGHTS = bytes(range(256)) * 400
FILES = {
    "README.md": b"---\nlicense: openrail\n---\n",
    "model_index.json": b"{}",
    "unet/config.json": json.dumps(CONFIGS["unet"]).encode(),
    "unet/diffusion_pytorch_model.safetensors": WEIGHTS,
    "unet/diffusion_pytorch_model.fp16.safetensors": WEIGHTS[:1000],
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"vae",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": b"text",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"#\n",
    "scheduler/scheduler_config.json": b"{}",
    "unused.bin": b"never asked for",
}


@pytest.fixture
def hub(workspace: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fake = FakeHub(dict(FILES))
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Hub.__init__, "__defaults__", (None, None, (0.0,), lambda _: None))
    monkeypatch.setattr("time.sleep", lambda _: None)
    workspace.recipe(model="{version: owner/model, revision: main}")
    yield fake
    fake.close()


def locked(workspace: Any) -> Any:
    return json.loads((workspace.root / "recipes" / "phone.lock").read_text())["repositories"][0]


def parameters(name: str) -> dict[str, Any]:
    return dict(make_plan(parse_options({"recipe": "phone"})).graph[name].parameters)


def take(tmp_path: Path, name: str = "source:unet") -> Path:
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    source.run({}, parameters(name), out, lambda _, __: None)
    return out


def test_a_lock_pins_commit_sizes_and_hashes(workspace: Any, hub: FakeHub) -> None:
    ran = workspace("lock", "recipe=phone")
    assert ran.status == 0, ran.err
    assert COMMIT[:12] in ran.out
    pinned = locked(workspace)
    assert (pinned["version"], pinned["revision"], pinned["commit"]) == ("owner/model", "main", COMMIT)
    for name, file in pinned["files"].items():
        assert file == {"size": len(FILES[name]), "sha256": hashlib.sha256(FILES[name]).hexdigest()}
    assert "unused.bin" not in pinned["files"]
    assert "unet/diffusion_pytorch_model.safetensors" not in pinned["files"], "a float16 build needs the half variant"
    assert not [name for name in hub.downloads() if name.endswith(".safetensors")], "the Hub tells those hashes itself"


def test_a_branch_is_as_good_as_a_commit_with_a_lock(workspace: Any, hub: FakeHub) -> None:
    assert "unpinned-revision" in workspace("plan", "recipe=phone").err
    workspace("lock", "recipe=phone")
    assert workspace("plan", "recipe=phone").status == 0
    unet = parameters("source:unet")
    assert unet["revision"] == COMMIT
    assert unet["files"]["config.json"] == {
        "name": "unet/config.json",
        "size": len(FILES["unet/config.json"]),
        "sha256": hashlib.sha256(FILES["unet/config.json"]).hexdigest(),
    }
    assert parameters("convert:unet")["origin"] == f"owner/model@{COMMIT}"
    assert parameters("bundle:iphone-15-pro")["model"]["revision"] == COMMIT


def test_the_same_lock_is_written_twice(workspace: Any, hub: FakeHub) -> None:
    workspace("lock", "recipe=phone")
    before = (workspace.root / "recipes" / "phone.lock").read_bytes()
    assert "as it was" in workspace("lock", "recipe=phone").out
    assert (workspace.root / "recipes" / "phone.lock").read_bytes() == before


def test_a_moved_branch_is_told_and_taken_on_request(workspace: Any, hub: FakeHub, tmp_path: Path) -> None:
    workspace("lock", "recipe=phone")
    hub.commits[LATER] = FILES | {"unet/config.json": b"{}"}
    hub.branches["main"] = LATER
    assert (take(tmp_path) / "config.json").read_bytes() == FILES["unet/config.json"]
    assert f"kept; now at {LATER[:12]}, see upgrade=true" in workspace("lock", "recipe=phone").out
    assert locked(workspace)["commit"] == COMMIT
    assert f"upgraded from {COMMIT[:12]}" in workspace("lock", "recipe=phone", "upgrade=true").out
    assert locked(workspace)["commit"] == LATER
    assert (take(tmp_path) / "config.json").read_bytes() == b"{}"


def test_a_build_takes_exactly_the_locked_files(workspace: Any, hub: FakeHub, tmp_path: Path) -> None:
    workspace("lock", "recipe=phone")
    hub.files["unet/diffusion_pytorch_model.fp16.bin"] = b"added later"
    out = take(tmp_path)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "diffusion_pytorch_model.fp16.safetensors",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("unet/config.json", b"{ }", "unet/config.json: 3 bytes, .* by the lock"),
        ("unet/diffusion_pytorch_model.fp16.safetensors", bytes(1000), "sha256 .*… by the lock"),
        ("unet/config.json", None, "unet/config.json: is not there any more"),
    ],
)
def test_drift_on_the_hub_is_named(
    workspace: Any, hub: FakeHub, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    workspace("lock", "recipe=phone")
    hub.files.pop(name)
    hub.files |= {name: content} if content is not None else {}
    with pytest.raises(source.SourceError, match=f"(?s)what the recipe's lock says.*{message}.*upgrade=true"):
        take(tmp_path)


def test_a_file_of_the_same_size_is_caught_by_its_hash(workspace: Any, hub: FakeHub, tmp_path: Path) -> None:
    workspace("lock", "recipe=phone")
    path = workspace.root / "recipes" / "phone.lock"
    real = hashlib.sha256(FILES["unet/config.json"]).hexdigest()
    path.write_text(path.read_text().replace(real, "0" * 64))
    with pytest.raises(HubError, match="not the one that the Hub or the recipe's lock declares"):
        take(tmp_path)
    ran = workspace("lock", "recipe=phone")
    assert ran.status == 1
    assert "other bytes than the lock says: unet/config.json" in ran.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "{version: owner/model, revision: v2}"}, "does not pin owner/model@v2"),
        ({"model": "{version: owner/other}"}, "does not pin owner/other, which the recipe names"),
        (
            {"model": "{version: owner/model, revision: main}", "precision": "{unet: float32}"},
            "does not pin unet/float32 of owner/model",
        ),
    ],
)
def test_a_recipe_that_has_changed_since_is_told(
    workspace: Any, hub: FakeHub, changes: dict[str, str], message: str
) -> None:
    workspace("lock", "recipe=phone")
    workspace.recipe(**changes)
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert message in ran.err
    assert "doit lock recipe=" in ran.err


def test_what_a_changed_recipe_needs_is_added(workspace: Any, hub: FakeHub) -> None:
    workspace("lock", "recipe=phone")
    workspace.recipe(
        model="{version: owner/model, revision: main}",
        precision="{unet: float32}",
        allow="[exceeds-app-memory, float32-on-neural-engine]",
    )
    assert workspace("lock", "recipe=phone").status == 0
    assert "unet/diffusion_pytorch_model.safetensors" in locked(workspace)["files"]
    assert workspace("plan", "recipe=phone").status == 0


def test_a_locked_build_needs_no_network_once_the_files_are_there(
    workspace: Any, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace("lock", "recipe=phone")
    first = sorted(path.name for path in take(tmp_path).iterdir())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert sorted(path.name for path in take(tmp_path).iterdir()) == first
    ran = workspace("lock", "recipe=phone")
    assert ran.status == 1
    assert "the Hub cannot be reached" in ran.err


def test_nothing_to_lock(workspace: Any) -> None:
    ran = workspace("lock", "recipe=phone")
    assert ran.status == 0
    assert "takes nothing from the Hub" in ran.out
    assert not (workspace.root / "recipes" / "phone.lock").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "repositories": [{"version": "a/b"}]}'])
def test_a_damaged_lock_is_refused(workspace: Any, text: str) -> None:
    (workspace.root / "recipes" / "phone.lock").write_text(text)
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert "phone.lock: " in ran.err
    assert "remove it and run `doit lock recipe=phone`" in ran.err


HOSTILE = [
    "/etc/cron.d/x",
    "../x",
    "unet/../../x",
    "C:\\x",
    "a\\b",
    "~/x",
    "x\0y",
    "",
    ".",
    "nul",
    "x/",
    "//x",
    "a:b",
    "\ud800",
]


@pytest.mark.parametrize("path", HOSTILE)
@pytest.mark.parametrize("place", ["file", "source", "destination", "name"])
def test_no_path_of_a_lock_leads_out_of_its_folder(workspace: Any, hub: FakeHub, path: str, place: str) -> None:
    """A lock says where the Hub's bytes are put: it is refused whole before anything of it is used."""
    workspace("lock", "recipe=phone")
    document = {"format": 1, "repositories": [locked(workspace)]}
    pin = document["repositories"][0]
    taken = pin["sources"]["unet/float16"]
    match place:
        case "file":
            pin["files"][path] = pin["files"]["unet/config.json"]
        case "source":
            pin["sources"][path] = taken
        case "destination":
            taken[path] = taken["config.json"]
        case "name":
            pin["files"][path] = pin["files"]["unet/config.json"]
            taken["config.json"] = path
    (workspace.root / "recipes" / "phone.lock").write_text(json.dumps(document))
    for command in (("plan",), ("check",), (), ("lock",)):
        ran = workspace(*command, "recipe=phone")
        assert ran.status == 2, ran.err
        assert "phone.lock: " in ran.err
        assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "change",
    [
        {"version": "../x/y"},
        {"version": "owner/../x"},
        {"revision": "../x"},
        {"commit": "main"},
        {"commit": 7},
        {"more": 1},
        {"files": {"x": {"size": -1, "sha256": "0" * 64}}},
        {"files": {"x": {"size": 1.5, "sha256": "0" * 64}}},
        {"files": {"x": {"size": 1, "sha256": "0" * 63 + "G"}}},
        {"files": []},
        {"sources": {"unet": {"a": "not pinned"}}},
    ],
)
def test_a_lock_says_nothing_that_no_lock_may_say(workspace: Any, hub: FakeHub, change: dict[str, Any]) -> None:
    workspace("lock", "recipe=phone")
    document = {"format": 1, "repositories": [locked(workspace) | change]}
    (workspace.root / "recipes" / "phone.lock").write_text(json.dumps(document))
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert "phone.lock: repositories.0" in ran.err


def test_mistakes_on_the_command_line(workspace: Any) -> None:
    assert "upgrade=yes: write upgrade=true" in workspace("lock", "recipe=phone", "upgrade=yes").err
    assert "unknown variable 'target='" in workspace("lock", "target=iphone-15-pro").err


def test_a_textual_inversion_is_pinned_like_the_rest(workspace: Any, hub: FakeHub) -> None:
    hub.commits[COMMIT] = FILES | {"toy/learned.pt": b"embedding"}
    hub.files["toy/learned.pt"] = b"embedding"
    workspace.recipe(
        model="{version: owner/model, revision: main}",
        textual_inversions="[{version: owner/model, revision: main, file: toy/learned.pt, token: <toy>}]",
    )
    ran = workspace("lock", "recipe=phone")
    assert ran.status == 0, ran.err
    assert locked(workspace)["sources"]["checkpoint/toy/learned.pt"]["learned.pt"] == "toy/learned.pt"
    pinned = parameters("source:embedding-1")
    assert pinned["revision"] == COMMIT
    assert pinned["files"]["learned.pt"]["sha256"] == hashlib.sha256(b"embedding").hexdigest()
