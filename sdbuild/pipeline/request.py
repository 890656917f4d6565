"""What to draw, checked before any model is loaded."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from sdbuild.pipeline.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

CLIENTS = ("swift", "diffusers")
"""Who draws: Apple's Swift package, or the pipelines of diffusers."""

RNGS = ("numpy", "torch", "nvidia")
"""The Swift package's sources of random numbers; the first is its default."""

CONFIGURATION = (
    *("schedulerTimestepSpacing", "schedulerTimestepShift", "encoderScaleFactor", "decoderScaleFactor"),
    *("decoderShiftFactor", "originalSize", "cropsCoordsTopLeft", "targetSize", "aestheticScore"),
    "negativeAestheticScore",
)
"""What of the Swift package's configuration a request can set, by the package's names."""

DEFAULT_SCHEDULER = "default"
SWIFT_SCHEDULERS: Mapping[str, str] = {
    "pndm": "pndmScheduler",
    "dpm": "dpmSolverMultistepScheduler",
    "flow": "discreteFlowScheduler",
}
"""What may be asked of the Swift package → its name there; `default` is what `bundle.json` tells an app to set."""

DIFFUSERS_SCHEDULERS: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "lcm": "LCMScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
}
"""What may be asked of diffusers → its class there; `default` is the checkpoint's own."""

_SCHEDULERS = (DEFAULT_SCHEDULER, *dict.fromkeys((*SWIFT_SCHEDULERS, *DIFFUSERS_SCHEDULERS)))

LARGEST_SEED = 2**32 - 1
"""Seeds are 32-bit numbers in the Swift package."""


MOST_STEPS = 1000
"""Denoising steps: the time steps that every scheduler here has."""
_MOST_PICTURES = 1000


@dataclass(frozen=True)
class Request:
    """What to draw of a prompt.

    Attributes:
        client: `swift`, as Apple's Swift package draws, or `diffusers`. None takes the Swift package wherever an app
            could ask it for such a picture.
        negative_prompt: what the picture should not show.
        steps: denoising steps, at least 1.
        guidance_scale: how strongly the prompt steers. None takes what `bundle.json` tells an app to set, or 7.5 with
            diffusers. With diffusers 1 or less means no guidance; with the Swift package less than 1 does, for Stable
            Diffusion 1 and 2.
        seed: of all random numbers, 32 bits.
        image_count: pictures of each prompt; they share one stream of random numbers, as in the Swift package.
        scheduler: `default`, or a key of `SWIFT_SCHEDULERS` or of `DIFFUSERS_SCHEDULERS`.
        rng: where random numbers come from: `numpy`, the Swift package's default, `torch` or `nvidia`.
        configuration: what of the Swift package's configuration differs from what `bundle.json` tells an app to set;
            the names are those of `CONFIGURATION`.
        image: a picture to start from.
        strength: how much of `image` is drawn anew, above 0 and at most 1; at 1 the Swift package ignores it.
        controlnet_images: ControlNet's name in the bundle → the picture that it follows, black to white.
        controlnet_scale: how strongly ControlNets steer.
        adapter_images: T2I-Adapter's name in the bundle → the picture that it follows; their features are added up.
        adapter_conditioning_scale: what their features are multiplied with: one number for all, or one for each of
            `adapter_images`, in their order. (What diffusers calls so.)
        refiner_start: the share of the steps that SDXL's base draws before the bundle's refiner, if it has one, goes
            on; 1 leaves the refiner out. The Swift package's default is 0.8 too.
        safety: whether the bundle's safety checker, if it has one, blackens what it flags.
        force_zeros_for_empty_prompt: steer away from zeros instead of the encoded empty prompt when there is no
            negative prompt. None does so with diffusers where `bundle.json` says it; the Swift package never does.
    """

    client: str | None = None
    negative_prompt: str = ""
    steps: int = 25
    guidance_scale: float | None = None
    seed: int = 0
    image_count: int = 1
    scheduler: str = DEFAULT_SCHEDULER
    rng: str = RNGS[0]
    configuration: Mapping[str, float | str] = field(default_factory=dict)
    image: Image.Image | None = None
    strength: float = 0.75
    controlnet_images: Mapping[str, Image.Image] = field(default_factory=dict)
    controlnet_scale: float = 1.0
    adapter_images: Mapping[str, Image.Image] = field(default_factory=dict)
    adapter_conditioning_scale: float | Sequence[float] = 1.0
    refiner_start: float = 0.8
    safety: bool = True
    force_zeros_for_empty_prompt: bool | None = None

    def __post_init__(self) -> None:
        self._refuse(self.steps < 1, f"steps={self.steps}: at least one step is needed")
        most = f"at most {MOST_STEPS}, which is how many time steps checkpoints are trained with"
        self._refuse(self.steps > MOST_STEPS, f"steps={self.steps}: {most}")
        self._refuse(self.image_count < 1, f"image_count={self.image_count}: at least one picture is needed")
        self._refuse(self.image_count > _MOST_PICTURES, f"image_count={self.image_count}: at most {_MOST_PICTURES}")
        self._refuse(
            not 0 < self.strength <= 1,
            f"strength={self.strength}: strength is above 0 (keep the picture) and at most 1 (keep next to nothing)",
        )
        self._refuse(
            not 0 <= self.refiner_start <= 1,
            f"refiner_start={self.refiner_start}: a share of the steps, from 0 to 1, is needed",
        )
        for name in ("guidance_scale", "controlnet_scale"):
            value = getattr(self, name)
            self._refuse(value is not None and not math.isfinite(value), f"{name}={value}: a number is needed")
        self._check_adapters()
        self._refuse(
            not 0 <= self.seed <= LARGEST_SEED, f"seed={self.seed}: a seed is a whole number from 0 to {LARGEST_SEED}"
        )
        for name, known in (("client", CLIENTS), ("rng", RNGS), ("scheduler", _SCHEDULERS)):
            word = getattr(self, name)
            self._refuse(
                word is not None and word not in known,
                f"{name}={word}: no such {name}{_nearest(str(word), known)}\n  write one of {', '.join(known)}",
            )
        for name in self.configuration:
            self._refuse(
                name not in CONFIGURATION,
                f"configuration={name}: no such setting{_nearest(name, CONFIGURATION)}\n"
                f"  it takes {', '.join(CONFIGURATION)}",
            )

    def _check_adapters(self) -> None:
        scale, count = self.adapter_conditioning_scale, len(self.adapter_images)
        weights = [scale] if isinstance(scale, int | float) else list(scale)
        written = ",".join(f"{weight:g}" for weight in weights)
        self._refuse(not all(map(math.isfinite, weights)), f"adapter_conditioning_scale={written}: numbers are needed")
        self._refuse(
            not isinstance(scale, int | float) and len(weights) != count,
            f"adapter_conditioning_scale={written}: {len(weights)} weights for {count} adapter images; give one for "
            "each, or one number for all",
        )
        self._refuse(
            bool(self.adapter_images and self.controlnet_images),
            "adapter_images and controlnet_images: a UNet takes T2I-Adapters' features or ControlNets' residuals, not "
            "both; draw with one of them",
        )

    @property
    def adapter_weights(self) -> tuple[float, ...]:
        """The weight of each of `adapter_images`, in their order."""
        scale = self.adapter_conditioning_scale
        return (float(scale),) * len(self.adapter_images) if isinstance(scale, int | float) else tuple(scale)

    @property
    def unet(self) -> str:
        """The UNet that draws what is asked for, by its name in a bundle."""
        if self.adapter_images:
            return "AdaptedUnet"
        return "ControlledUnet" if self.controlnet_images else "Unet"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Request:
        """A request from named fields.

        Raises:
            RequestError: there is no such field, or a value makes no sense.
        """
        known = [entry.name for entry in fields(cls)]
        for name in options:
            if name not in known:
                raise RequestError(f"no option '{name}'{_nearest(name, known)}\n  it takes {', '.join(known)}")
        return cls(**options)

    @staticmethod
    def _refuse(wrong: bool, message: str) -> None:
        if wrong:
            raise RequestError(message)


def _nearest(word: str, words: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
