"""Real bundles of tiny checkpoints, built once a session through the planner with every stage in this process."""

from __future__ import annotations

import importlib
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import load_file, save_file

from sdbuild.builtin import tiny
from sdbuild.plan.action import Action, closure
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from sdbuild.plan.session import Session
from sdbuild.plan.status import Status
from sdbuild.stages.notes import take_notes
from sdbuild.store import ActionResult, Store

TARGET = "mac-studio-m2-ultra"
FLOAT32 = "{text_encoder: float32, unet: float32, vae_decoder: float32, vae_encoder: float32, safety_checker: float32}"
FLOAT32_SD3 = (
    "{text_encoder: float32, text_encoder_2: float32, text_encoder_3: float32, transformer: float32, "
    "vae_decoder: float32}"
)
FLOAT32_XL = "{text_encoder: float32, text_encoder_2: float32, unet: float32, vae_decoder: float32}"

RECIPES = {
    "sd": f"""
        model: {{version: ../checkpoints/flagging}}
        components: [text_encoder, unet, vae_decoder, vae_encoder, safety_checker]
        precision: {FLOAT32}
        """,
    "sd-batch-1": """
        extends: sd
        components: [text_encoder, unet, vae_decoder]
        precision: {vae_encoder: null, safety_checker: null}
        unet: {batch: 1, chunks: 2}
        """,
    "sd-chunked": """
        extends: sd
        components: [text_encoder, unet, vae_decoder]
        precision: {vae_encoder: null, safety_checker: null}
        unet: {chunks: 2}
        """,
    "sd-controlled": """
        extends: sd
        components: [text_encoder, unet, vae_decoder]
        precision: {controlnet: float32, vae_encoder: null, safety_checker: null}
        unet: {chunks: 2}
        controlnets: [{version: ../checkpoints/edges}, {version: "builtin:tiny-controlnet"}]
        """,
    "sd-adapted": """
        extends: sd
        components: [text_encoder, unet, vae_decoder]
        precision: {t2i_adapter: float32, vae_encoder: null, safety_checker: null}
        unet: {chunks: 2}
        t2i_adapters: [{version: "builtin:tiny-t2i-adapter"}, {version: "builtin:tiny-t2i-adapter-light"}]
        allow: [not-for-the-swift-package]
        """,
    "sd-adapted-batch-1": """
        extends: sd-adapted
        unet: {batch: 1, chunks: 1}
        """,
    "sdxl-adapted": """
        extends: sdxl
        precision: {t2i_adapter: float32}
        t2i_adapters: [{version: "builtin:tiny-t2i-adapter-sdxl"}]
        allow: [not-for-the-swift-package]
        """,
    "sd-half": """
        extends: sd
        precision: {text_encoder: float16}
        """,
    "sd2": """
        model: {version: ../checkpoints/sd2}
        components: [text_encoder, unet, vae_decoder]
        precision: {text_encoder: float32, unet: float32, vae_decoder: float32}
        """,
    "sd2-chunked": """
        extends: sd2
        unet: {batch: 1, chunks: 2}
        """,
    "sd2-velocity": """
        extends: sd2
        unet: {prediction: checkpoint}
        """,
    "sd3": f"""
        model: {{version: "builtin:tiny-sd3"}}
        components: [text_encoder, text_encoder_2, text_encoder_3, transformer, vae_decoder]
        precision: {FLOAT32_SD3}
        """,
    "sd3-without-t5": """
        extends: sd3
        model: {version: "builtin:tiny-sd35"}
        components: [text_encoder, text_encoder_2, transformer, vae_decoder]
        precision: {text_encoder_3: null}
        """,
    "sdxl": f"""
        model: {{version: "builtin:tiny-sdxl"}}
        components: [text_encoder, text_encoder_2, unet, vae_decoder]
        precision: {FLOAT32_XL}
        """,
}


class InProcess:
    """Runs stages here instead of in worker processes: importing torch once is enough."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, action: Action, status: Status, memory: int | None) -> ActionResult:
        assert status.document is not None
        assert status.key is not None
        # Not the stage's entry, which may turn the process into one that is good for nothing else.
        run = importlib.import_module(f"sdbuild.stages.{action.stage.name}").run
        out = self._store.scratch()
        with TemporaryDirectory() as folder:
            inputs = {}
            for role, digest in status.document["inputs"].items():
                inputs[role] = Path(folder, role)
                self._store.materialise(digest, inputs[role], mode="input")
            run(inputs, dict(action.parameters), out, _silent)
        notes = take_notes(out)
        tree = self._store.put_tree(out)
        result = ActionResult(tree.digest, 1.0, 0, 0, "", "2026-01-01T00:00:00+00:00", notes)
        self._store.record(status.key, status.document, result, name=action.name)
        return result

    def read(self, action: Action) -> ActionResult:
        tree = self._store.reference_tree(action.files)
        return ActionResult(tree.digest, 1.0, 0, 0, "", "2026-01-01T00:00:00+00:00")


def _run(session: Session, actions: Iterable[Action]) -> None:
    for action in actions:
        if not session.is_current(action):
            failure = session.run(action)
            assert failure is None, failure


def _silent(fraction: float, message: str) -> None:
    pass


@dataclass
class Studio:
    """A folder with recipes, checkpoints, a cache, and the bundles that tests have asked for."""

    root: Path
    recipes: Mapping[str, str] = field(default_factory=lambda: RECIPES)
    # Higher than wide, which shows where rows and columns are exchanged.
    latent: str = "{height: 16, width: 8}"
    _bundles: dict[str, Path] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def out(self) -> Path:
        return self.root / "build"

    @cached_property
    def recipe_folder(self) -> Path:
        folder = self.root / "recipes"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.recipes.items():
            shared = "" if "extends:" in text else f"attention_implementation: ORIGINAL\nlatent: {self.latent}\n"
            body = textwrap.dedent(text).strip()
            (folder / f"{name}.yaml").write_text(f"name: {name}\n{shared}{body}\ntargets: [{TARGET}]\n")
        return folder

    def bundle(self, name: str, verify: str = "off") -> Path:
        """The bundle of a recipe, built when it is first asked for."""
        if name not in self._bundles:
            session = self._session(name, verify)
            _run(session, session.plan.graph)
            (self._bundles[name],) = session.outputs.values()
        return self._bundles[name]

    def make(self, name: str, *tasks: str) -> None:
        """Run tasks of a recipe, as far as they are not in the cache."""
        session = self._session(name, "on")
        for task in tasks:
            action = session.plan.graph[task]
            _run(session, (*closure(action), action))

    def words(self, name: str) -> tuple[str, str]:
        """The recipe and its place as a command line has them."""
        return f"recipe={self.recipe_folder / name}.yaml", f"out={self.out}"

    def _session(self, name: str, verify: str) -> Session:
        self._make_checkpoints()
        variables = dict(word.split("=", 1) for word in self.words(name))
        store = Store(self.cache)
        session = Session(make_plan(parse_options({**variables, "verify": verify})), store, InProcess(store))
        session.check_recipe()
        return session

    def _make_checkpoints(self) -> None:
        """The checkpoints that the recipes name by their folder."""
        if not (self.root / "checkpoints/flagging").exists():
            _make_flagging(self.checkpoint("tiny-sd"), self.root / "checkpoints/flagging")
            # With the VAE of tiny-sd, which is then converted once for both.
            shutil.copytree(self.checkpoint("tiny-sd2"), self.root / "checkpoints/sd2")
            shutil.copytree(self.checkpoint("tiny-sd") / "vae", self.root / "checkpoints/sd2/vae", dirs_exist_ok=True)
            _make_edges(self.checkpoint("tiny-controlnet"), self.root / "checkpoints/edges")

    def checkpoint(self, name: str) -> Path:
        """A generated checkpoint as diffusers reads it."""
        folder = self.root / "checkpoints" / name
        if not folder.exists():
            tiny.generate(name, folder)
        return folder


def _make_flagging(source: Path, folder: Path) -> None:
    """tiny-sd with a safety checker whose thresholds every picture is above."""
    shutil.copytree(source, folder)
    weights = folder / "safety_checker/model.safetensors"
    tensors = load_file(weights)
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        tensors[name] = np.full_like(tensors[name], -2.0)
    save_file(tensors, weights, {"format": "pt"})


def _make_edges(source: Path, folder: Path) -> None:
    """A second ControlNet with other weights."""
    shutil.copytree(source, folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    save_file({name: -0.5 * tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
