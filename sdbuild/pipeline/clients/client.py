"""What a client is: all in which Apple's Swift package and diffusers differ when they draw with the same models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Protocol

from PIL import Image

from sdbuild.pipeline.clients.reading import Reader
from sdbuild.pipeline.condition import Condition, Floats
from sdbuild.pipeline.denoiser import Denoiser
from sdbuild.pipeline.models import RunnableModel
from sdbuild.pipeline.text import TextStates

Turn = tuple[Denoiser, Condition]
"""Who denoises, and what steers it."""

Observe = Callable[[int, int, Floats], None]
"""Called after each step with the steps done, the steps in all, and the sample."""


class Artist(Protocol):
    """Draws the pictures of one prompt, which share a stream of random numbers."""

    def latents(self, index: int, first: Turn, refiner: Callable[[], Turn] | None, observe: Observe) -> Floats:
        """What the decoder is given for one of the pictures, still scaled.

        Args:
            index: which of the prompt's pictures.
            first: who begins.
            refiner: gives who draws the last steps; asked when it is its turn. None where there is none.
            observe: called after each step.

        Raises:
            PipelineError: the latents are no numbers any more.
        """


class Client(Protocol):
    """A client with a bundle and a request.

    Attributes:
        name: what it is called on a command line.
    """

    name: ClassVar[str]

    def check(self) -> None:
        """Refuse what this client cannot do, before any model is loaded.

        Raises:
            RequestError: it never can.
            PipelineError: it cannot with this bundle.
        """

    def remarks(self) -> Iterator[str]:
        """What of the request it does not do as one would expect."""

    def reader(self) -> Reader:
        """How it reads prompts."""

    @property
    def guidance_scale(self) -> float:
        """The request's guidance, or the client's where the request has none."""

    @property
    def starts_from_picture(self) -> bool:
        """Whether the request's picture is encoded and drawn anew."""

    @property
    def checks_safety(self) -> bool:
        """Whether the bundle's safety checker sees the pictures."""

    def unconditional(self, states: TextStates) -> TextStates:
        """What is steered away from, given the encoded negative prompt."""

    def time_ids(self, values: int) -> Floats:
        """The sizes that SDXL's UNet is told, (2, values): 6 of them, or 5 for its refiner.

        Raises:
            PipelineError: another number of values.
        """

    def artist(self, moments: Floats | None) -> Artist:
        """Who draws a prompt's pictures.

        Args:
            moments: mean and logarithm of the variance of the encoded picture to start from, (1, 2 channels, height,
                width).
        """

    def unscaled(self, latents: Floats) -> Floats:
        """What the decoder takes."""

    def is_flagged(self, checker: RunnableModel, picture: Image.Image) -> bool:
        """Whether the safety checker finds a picture unsafe."""

    def story(self) -> Mapping[str, str]:
        """What a picture's metadata tell of the client's choices."""
