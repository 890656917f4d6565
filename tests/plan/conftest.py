"""A workspace with its own recipes, checkpoint and cache, and stages that take milliseconds instead of minutes."""

import hashlib
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdbuild import cli
from sdbuild.console import program
from sdbuild.errors import SdbuildError
from sdbuild.plan.action import Action
from sdbuild.plan.status import Status
from sdbuild.store import ActionResult, Store
from tests.plan.fakes import CONFIGS, weights

RECIPE = """
    name: phone
    description: The first description
    model: {version: ../checkpoint}
    components: [text_encoder, unet, vae_decoder]
    attention_implementation: SPLIT_EINSUM
    latent: {height: 64, width: 64}
    unet: {batch: 2, chunks: 2}
    quantization: {unet: 6}
    targets: [iphone-15-pro]
"""

_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_SCHEDULE = {"_class_name": "PNDMScheduler", "prediction_type": "epsilon"}


@dataclass
class Ran:
    """What one command line did."""

    status: int
    out: str
    err: str
    actions: list[str]
    """The names of the actions that were really executed, in order."""


class FakeWork:
    """Instead of worker processes: artifacts that depend on nothing but the inputs' content and the parameters."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: dict[str, str] = {}

    def run(self, store: Store, action: Action, status: Status) -> ActionResult:
        self.ran.append(action.name)
        if action.name in self.failing:
            raise SdbuildError(self.failing[action.name])
        assert status.document is not None
        assert status.key is not None
        inputs: dict[str, dict[str, str]] = {}
        velocity = False
        for role, digest in status.document["inputs"].items():
            places = store.locate(digest)
            assert places is not None, f"{action.name} has lost {role}"
            inputs[role] = {path: hashlib.sha256(place.read_bytes()).hexdigest() for path, place in places.items()}
            scheduler = places.get("scheduler/scheduler_config.json")
            velocity = velocity or (scheduler is not None and "v_prediction" in scheduler.read_text())
        out = store.scratch()
        text = json.dumps({"parameters": dict(action.parameters), "inputs": inputs}, sort_keys=True)
        files = {} if action.stage.name == "prediction" and not velocity else _files_of(action, text)
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content.encode("latin-1"))
        tree = store.put_tree(out)
        result = ActionResult(tree.digest, 12.5, 2_000_000, 1_000_000, "logs/none", "2026-01-01T00:00:00+00:00")
        store.record(status.key, status.document, result, name=action.name.partition("@")[0])
        return result


def _files_of(action: Action, text: str) -> dict[str, str]:
    match action.stage.name:
        case "source":
            # A generated checkpoint: what it holds depends on its name alone.
            index = {"_class_name": "StableDiffusionPipeline"}
            index |= {name: ["diffusers", value] for name, value in _CLASSES.items()}
            if action.component in CONFIGS:
                content = weights(action.component, action.parameters["version"]).decode("latin-1")
                return {"config.json": json.dumps(CONFIGS[action.component]), "model.safetensors": content}
            return {
                "index": {"model_index.json": json.dumps(index), "unet/config.json": json.dumps(CONFIGS["unet"])},
                "tokenizer": {"vocab.json": "{}", "merges.txt": "#\n"},
                "scheduler": {"scheduler_config.json": "{}"},
            }.get(action.component, {"config.json": "{}", "model.safetensors": text})
        case "verify":
            return {
                "verification.json": json.dumps({"outputs": {"sample": {"structure_db": 120.0, "signal_db": 66.0}}})
            }
        case "bundle":
            document = {"format": 1, "recipe": "", "target": "", "models": {"Unet": {"file": "Unet.mlpackage"}}}
            return {
                "Resources/Unet.mlpackage/Manifest.json": text,
                "bundle.json": json.dumps(document | {"text": text}),
            }
        case _:
            return {f"{action.component}.mlpackage/weights": text, "modules.json": "{}"}


@dataclass
class Workspace:
    """A folder in which command lines run."""

    root: Path
    cache: Path
    work: FakeWork
    capture: Any

    def recipe(self, **changes: str) -> None:
        """Write the recipe `phone`; each change replaces one of its top-level lines, the name too."""
        lines = textwrap.dedent(RECIPE).strip().splitlines()
        for key, value in changes.items():
            lines = [line for line in lines if not line.startswith(f"{key}:")] + [f"{key}: {value}"]
        name = next(line for line in lines if line.startswith("name:")).split()[1]
        folder = self.root / "recipes"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")

    def __call__(self, *words: str) -> Ran:
        """Run `sdbuild` with these words."""
        self.capture.readouterr()
        before = len(self.work.ran)
        status = cli.main(list(words))
        captured = self.capture.readouterr()
        return Ran(status, captured.out, captured.err, self.work.ran[before:])

    def store(self) -> Store:
        return Store(self.cache)

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file of workspace and cache with its size and time of change."""
        paths = [path for root in (self.root, self.cache) for path in root.rglob("*")]
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


def write_checkpoint(folder: Path) -> None:
    files: Mapping[str, Any] = {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "text_encoder": ["transformers", "CLIPTextModel"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "unet/config.json": CONFIGS["unet"],
        "unet/diffusion_pytorch_model.safetensors": None,
        "vae/config.json": CONFIGS["vae"],
        "vae/diffusion_pytorch_model.safetensors": None,
        "text_encoder/config.json": CONFIGS["text_encoder"],
        "text_encoder/model.safetensors": None,
        "tokenizer/vocab.json": {"a": 0},
        "tokenizer/merges.txt": "",
        "scheduler/scheduler_config.json": _SCHEDULE,
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.write_bytes(weights(path.parent.name, folder.name))
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workspace:
    root = tmp_path / "work"
    root.mkdir()
    write_checkpoint(root / "checkpoint")
    monkeypatch.chdir(root)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    work = FakeWork()
    monkeypatch.setattr(
        program.LocalExecutor,
        "run",
        lambda self, action, status, memory: work.run(self._store, action, status),
        raising=True,
    )
    made = Workspace(root, tmp_path / "cache", work, capsys)
    made.recipe()
    return made
