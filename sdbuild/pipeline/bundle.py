"""A bundle opened for drawing: its facts, and its models loaded when they are first needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sdbuild.bundle.document import bundle_digest, read_document
from sdbuild.bundle.layout import COMPILED, DOCUMENT, PACKAGE, RESOURCES
from sdbuild.pipeline.denoiser import RunnableModel
from sdbuild.pipeline.errors import PipelineError
from sdbuild.tensors import TensorSpec

_END_OF_TEXT = "<|endoftext|>"
_SECOND_PADDING = "!"
"""What SDXL's second encoder is padded with, as the Swift package does."""


@dataclass
class OpenBundle:
    """A bundle directory and the models of it that are in memory.

    Attributes:
        path: the directory with `bundle.json` and `Resources`.
        document: what `bundle.json` says.
        precision: arithmetic of the reference runtime.
        backend: the reference runtime, or Core ML on a Mac.
        compute_unit: where Core ML runs; the target's compute unit by default.
    """

    path: Path
    document: Mapping[str, Any]
    precision: Literal["fp32", "fp16"] = "fp32"
    backend: Literal["torch", "coreml"] = "torch"
    compute_unit: Any = None
    _loaded: dict[str, RunnableModel] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, **options: Any) -> OpenBundle:
        """Read a bundle's document; models are loaded later.

        Raises:
            PipelineError: the directory is no bundle, or a bundle of compiled models.
        """
        if not (path / DOCUMENT).is_file():
            raise PipelineError(
                f"{path} is no bundle: {DOCUMENT} is missing; build it with doit, or name its directory"
            )
        return cls(path, read_document(path), **options)

    @property
    def resources(self) -> Path:
        """The directory that an app ships."""
        return self.path / RESOURCES

    @property
    def digest(self) -> str:
        """The bundle's identity: sha256 of its document, which names every model's digest."""
        return bundle_digest(self.path)

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of the pictures."""
        image = self.document["image"]
        return int(image["height"]), int(image["width"])

    @property
    def latent_channels(self) -> int:
        """Channels of a latent image."""
        return int(self.document["vae"]["latent_channels"])

    @property
    def scaling_factor(self) -> float:
        """Latents are multiplied by this after encoding and divided by it before decoding."""
        return float(self.document["vae"]["scaling_factor"])

    @property
    def shift_factor(self) -> float:
        """What is taken off latents before scaling; 0 for all families but SD 3."""
        return float(self.document["vae"]["shift_factor"])

    @property
    def scheduler_configuration(self) -> Mapping[str, Any]:
        """The checkpoint's own scheduler configuration."""
        configuration: Mapping[str, Any] = self.document["scheduler"]
        return configuration

    @property
    def controlnets(self) -> tuple[str, ...]:
        """The ControlNets' names."""
        return tuple(entry["name"] for entry in self.document["controlnets"])

    def has(self, name: str) -> bool:
        """Whether the bundle holds a model called `name`."""
        return name in self.document["models"]

    def text_encoders(self) -> Iterator[tuple[str, str]]:
        """Name and padding token of each text encoder, in the order in which the UNet wants their states."""
        found = [name for name in ("TextEncoder", "TextEncoder2") if self.has(name)]
        if not found:
            raise PipelineError(f"{self.path} has no text encoder; add text_encoder to the recipe's components")
        padding = self.document.get("tokenizer", {}).get("padding_token", _END_OF_TEXT)
        for name in found:
            yield name, _SECOND_PADDING if name == "TextEncoder2" else padding

    def unet_files(self, *, controlled: bool) -> tuple[str, ...]:
        """The models that make up the UNet, in the order in which they run.

        Raises:
            PipelineError: the bundle has no such UNet.
        """
        base = "ControlledUnet" if controlled else "Unet"
        for names in ((f"{base}Chunk1", f"{base}Chunk2"), (base,)):
            if all(self.has(name) for name in names):
                return names
        other = "without ControlNets" if controlled else "and needs ControlNet pictures"
        raise PipelineError(f"{self.path} has no {base}: it draws {other}")

    def unet_inputs(self) -> dict[str, TensorSpec]:
        """The inputs of the UNet, whichever the bundle has."""
        for controlled in (False, True):
            try:
                files = self.unet_files(controlled=controlled)
            except PipelineError:
                continue
            return {
                entry["name"]: TensorSpec(entry["name"], tuple(entry["shape"]), "float32")
                for file in reversed(files)
                for entry in self.document["models"][file]["inputs"]
            }
        raise PipelineError(f"{self.path} has no UNet; add unet to the recipe's components")

    def model(self, name: str) -> RunnableModel:
        """A loaded model; the second call gives the same one.

        Raises:
            PipelineError: the bundle has no such model, or only a compiled one that this backend cannot run.
        """
        if name not in self._loaded:
            if not self.has(name):
                raise PipelineError(f"{self.path} has no {name}; it has {', '.join(self.document['models'])}")
            path = self.resources / self.document["models"][name]["file"]
            if path.suffix == COMPILED and self.backend == "torch":
                raise PipelineError(
                    f"{path} is compiled; only Core ML on a Mac runs that: use backend=coreml, or a bundle of {PACKAGE}s"
                )
            self._loaded[name] = self._load(path)
        return self._loaded[name]

    def release(self, *names: str) -> None:
        """Forget some loaded models, or all of them."""
        for name in names or tuple(self._loaded):
            self._loaded.pop(name, None)

    def _load(self, path: Path) -> RunnableModel:
        from sdbuild.coreml.runtime import Model

        unit = self.compute_unit or self.document["compute_unit"]
        model: RunnableModel = Model(path, self.precision, backend=self.backend, compute_unit=unit)
        return model
