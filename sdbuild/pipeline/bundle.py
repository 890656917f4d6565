"""A bundle opened for drawing: its facts, and its models loaded when they are first needed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from sdbuild.bundle.document import bundle_digest, read_document
from sdbuild.bundle.layout import DOCUMENT, RESOURCES
from sdbuild.families import XL_FAMILIES
from sdbuild.pipeline.errors import PipelineError, RequestError
from sdbuild.pipeline.models import Backend, Precision, RunnableModel, load_model
from sdbuild.pipeline.request import Request
from sdbuild.pipeline.sd3 import TRANSFORMER, TransformerAsUnet, as_unet
from sdbuild.tensors import TensorSpec

COMPUTE_UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")
# UNet that takes more → whose work it takes, and where a recipe lists those.
_CONDITIONED = {"ControlledUnet": ("ControlNets", "controlnets"), "AdaptedUnet": ("T2I-Adapters", "t2i_adapters")}
_LATENT_CHANNELS_ONLY = "this pipeline draws with UNets that take the latent image alone"


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
    precision: Precision = "fp32"
    backend: Backend = "torch"
    compute_unit: str | None = None
    _loaded: dict[str, RunnableModel] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, **options: Any) -> OpenBundle:
        """Read a bundle's document; models are loaded later.

        Raises:
            PipelineError: the directory is no bundle.
            RequestError: an option has a value that does not exist.
        """
        for name, known in (
            ("precision", get_args(Precision)),
            ("backend", get_args(Backend)),
            ("compute_unit", (None, *COMPUTE_UNITS)),
        ):
            if name in options and options[name] not in known:
                written = ", ".join(filter(None, known))
                raise RequestError(f"{name}={options[name]}: write one of {written}")
        if not (path / DOCUMENT).is_file():
            raise PipelineError(
                f"{path} is no bundle: it has no {DOCUMENT}; build the recipe, and name the folder of the target"
            )
        return cls(path, read_document(path), **options)

    @property
    def resources(self) -> Path:
        """The directory that an app ships."""
        return self.path / RESOURCES

    @cached_property
    def digest(self) -> str:
        """The bundle's identity: sha256 of its document, which names every model's digest."""
        return bundle_digest(self.path)

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of the pictures."""
        image = self.document["image"]
        return int(image["height"]), int(image["width"])

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(1, channels, rows, columns) of a latent image."""
        return (1, *self.unet_inputs()["sample"].shape[1:])

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

    @property
    def t2i_adapters(self) -> tuple[str, ...]:
        """The T2I-Adapters' names."""
        return tuple(entry["name"] for entry in self.document.get("t2i_adapters", ()))

    def has(self, name: str) -> bool:
        """Whether the bundle holds a model called `name`."""
        return name in self.document["models"]

    def text_encoders(self) -> list[str]:
        """CLIP's encoders, in the order in which the UNet wants their states."""
        found = [name for name in ("TextEncoder", "TextEncoder2") if self.has(name)]
        if not found and self.has("MultilingualTextEncoderProjection"):
            raise PipelineError(
                f"{self.path} is multilingual: its texts are embedded by NLContextualEmbedding, which Apple's systems "
                "alone have; draw there, with the Swift package and its useMultilingualTextEncoder (the command line's "
                "--use-multilingual-text-encoder), without which it looks for a TextEncoder and stops"
            )
        if not found:
            raise PipelineError(f"{self.path} has no text encoder; add text_encoder to the recipe's components")
        return found

    def check(self, request: Request, *, encodes: bool) -> None:
        """Refuse what a request needs and the bundle lacks, before any model is loaded.

        Args:
            request: what is asked for.
            encodes: whether the request's picture is encoded.

        Raises:
            PipelineError: says what is missing and what to do.
        """
        self.text_encoders()
        self.unet_files(request.unet)
        channels, expected = self.latent_shape[1], int(self.document["vae"]["latent_channels"])
        if channels != expected:
            task = self.document.get("task") or "other"
            raise PipelineError(
                f"the UNet takes {channels} channels, as {task} models do; {_LATENT_CHANNELS_ONLY}\n"
                "  the bundle is for an app that feeds the others too: its bundle.json names them under extensions"
            )
        if not self.has("VAEDecoder"):
            raise PipelineError(f"{self.path} has no VAEDecoder; add vae_decoder to the recipe's components")
        if encodes and not self.has("VAEEncoder"):
            raise PipelineError("image to image needs VAEEncoder; add vae_encoder to the recipe's components")
        _check_names("ControlNet", request.controlnet_images, self.controlnets, "controlnets")
        _check_names("T2I-Adapter", request.adapter_images, self.t2i_adapters, "t2i_adapters")

    def unet_files(self, base: str = "Unet") -> tuple[str, ...]:
        """The models that make up a UNet (`Unet`, `ControlledUnet`, `AdaptedUnet`), in the order in which they run.

        Raises:
            PipelineError: the bundle has no such UNet.
        """
        if self.has(TRANSFORMER) and base == "Unet":
            return (TRANSFORMER,)
        if names := self._whole_or_chunks(base):
            return names
        if base in _CONDITIONED:
            kinds, key = _CONDITIONED[base]
            raise PipelineError(f"{self.path} has no {base}, which {kinds} need; list them under {key}: in the recipe")
        named = {"ControlNet": self.controlnets, "T2I-Adapter": self.t2i_adapters}
        advice = "".join(f"give it {kind} pictures, or " for kind, names in named.items() if names)
        raise PipelineError(f"{self.path} has no {base}; {advice}add unet to the recipe's components")

    @property
    def refiner_files(self) -> tuple[str, ...]:
        """The models that make up the UNet of SDXL's refiner beside the base's; empty where there is none."""
        return self._whole_or_chunks("UnetRefiner")

    def _whole_or_chunks(self, base: str) -> tuple[str, ...]:
        for names in ((f"{base}Chunk1", f"{base}Chunk2"), (base,)):
            if all(self.has(name) for name in names):
                return names
        return ()

    def unet_inputs(self, base: str | None = None) -> dict[str, TensorSpec]:
        """The inputs of the UNet of that name, by default of whichever the bundle has."""
        if base in (None, "Unet") and self.has(TRANSFORMER):
            return {spec.name: spec for spec in as_unet(self._specs(TRANSFORMER))}
        for name in ("Unet", *_CONDITIONED) if base is None else (base,):
            if files := self._whole_or_chunks(name):
                return {spec.name: spec for file in reversed(files) for spec in self._specs(file)}
        raise PipelineError(f"{self.path} has no UNet; add unet to the recipe's components")

    def model(self, name: str) -> RunnableModel:
        """A loaded model; the second call gives the same one.

        Raises:
            PipelineError: the bundle has no such model, or only a compiled one that this backend cannot run.
        """
        if name not in self._loaded:
            if not self.has(name):
                raise PipelineError(f"{self.path} has no {name}; it has {', '.join(self.document['models'])}")
            loaded = load_model(
                self.resources / self.document["models"][name]["file"],
                self._specs(name),
                precision=self.precision,
                backend=self.backend,
                compute_unit=self.compute_unit or self._default_compute_unit(name),
            )
            self._loaded[name] = TransformerAsUnet(loaded) if name == TRANSFORMER else loaded
        return self._loaded[name]

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are in memory."""
        return tuple(self._loaded)

    def release(self, *names: str) -> None:
        """Forget some loaded models, or all of them."""
        for name in names or tuple(self._loaded):
            self._loaded.pop(name, None)

    def _specs(self, name: str) -> tuple[TensorSpec, ...]:
        """What `bundle.json` says that a model takes."""
        inputs = self.document["models"][name]["inputs"]
        return tuple(TensorSpec(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in inputs)

    def _default_compute_unit(self, name: str) -> str:
        """The target's; the Swift package keeps SDXL's VAE off the Neural Engine."""
        if name.startswith("VAE") and self.document["family"] in XL_FAMILIES:
            return "CPU_AND_GPU"
        return str(self.document["compute_unit"])


def _check_names(kind: str, asked: Iterable[str], known: tuple[str, ...], key: str) -> None:
    """Refuse a ControlNet or T2I-Adapter that the bundle does not have."""
    for name in asked:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            listed = ", ".join(known) or f"none; list them under {key}: in the recipe"
            raise PipelineError(f"no {kind} called '{name}'{hint}\n  the bundle has {listed}")
