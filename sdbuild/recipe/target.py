"""The target as a validated value: the device that a bundle is built for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from sdbuild.recipe.part import Part
from sdbuild.recipe.vocabulary import AttentionImplementation, ComputeUnit, Name, OperatingSystem

_Text = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]?(\.[0-9]+){0,2}$")]


class NeuralEngine(Part):
    """The chip's Neural Engine."""

    generation: _Text = Field(
        description="The chip family that it belongs to: all chips of one family have the same cores, an Ultra has "
        "twice as many.",
        examples=["A17", "M2"],
    )
    cores: int = Field(ge=1, le=1024, description="How many cores it has.")
    tops: float | None = Field(
        default=None, gt=0, description="10^12 operations a second, where Apple has published the figure."
    )


class Latency(Part):
    """One published measurement, so that figures of one's own have something to stand beside."""

    device: _Text = Field(description="The very device that was measured.")
    model: _Text = Field(description="The checkpoint's Hub id.")
    height: int = Field(ge=64, le=4096, description="Rows of the picture.")
    width: int = Field(ge=64, le=4096, description="Columns of the picture.")
    unet_bits: float = Field(gt=0, le=32, description="Bits for each weight of the UNet, on average.")
    compute_unit: ComputeUnit = Field(description="The processors that the app used.")
    attention_implementation: AttentionImplementation = Field(description="How attention was written.")
    reduce_memory: bool = Field(description="Whether each model was loaded only while it was needed.")
    steps: int = Field(ge=1, le=1000, description="Steps of the schedule, each with and without the prompt.")
    seconds: float = Field(gt=0, description="From the prompt to the picture.")
    iterations_per_second: float = Field(gt=0, description="Steps a second while the UNet runs.")


class Target(Part):
    """A device profile: chip, memory, operating system, compute unit and limits."""

    name: Name = Field(description="The target's name; its file is called `NAME.yaml`.", examples=["iphone-15-pro"])
    device: _Text = Field(description="The device as its maker calls it.")
    also: tuple[_Text, ...] = Field(
        default=(), max_length=16, description="Other devices with the same chip and memory, which this target serves."
    )
    chip: _Text = Field(description="The system on chip.", examples=["A17 Pro"])
    neural_engine: NeuralEngine | None = Field(default=None, description="The chip's Neural Engine.")
    memory_gb: float = Field(gt=0, le=2048, description="The device's memory, in units of 2^30 bytes.")
    app_memory_gb: float = Field(
        gt=0, le=2048, description="What one app may use of it, in units of 2^30 bytes, before the system ends the app."
    )
    os: OperatingSystem = Field(description="The operating system.")
    os_version: _Version = Field(
        description="The oldest version of it that bundles serve, unless a recipe's deployment target is newer; in "
        "quotes.",
        examples=["17.0"],
    )
    shipped_os_version: _Version | None = Field(
        default=None, description="The version that the device was sold with: it never ran an older one; in quotes."
    )
    newest_os_version: _Version | None = Field(
        default=None, description="The newest version that is known to run on it; in quotes."
    )
    compute_unit: ComputeUnit = Field(description="The processors on which the app runs the UNet.")
    attention_implementation: AttentionImplementation = Field(
        description="The attention implementation that is fastest here; recipes that name none get this one."
    )
    chunks_required: bool = Field(description="Whether the UNet must be split in two, whatever its size.")
    chunk_limit_mb: float | None = Field(
        default=None,
        gt=0,
        description="The largest model, a whole UNet or a chunk, that loads here, in units of 10^6 bytes; without it, "
        "no limit.",
    )
    reduce_memory: bool = Field(
        default=False,
        description="Whether apps load each model only while it is needed here, as `reduceMemory` of the Swift package "
        "does; recipes that say nothing get this.",
    )
    latencies: tuple[Latency, ...] = Field(default=(), max_length=64, description="Published measurements.")

    @property
    def system(self) -> str:
        """The operating system with its version, for people."""
        return f"{self.os} {self.os_version}"

    @property
    def os_generation(self) -> int:
        """The oldest system's major version on iOS's scale (macOS 13 is 16, 14 is 17, 15 is 18; from 26 on equal)."""
        return self._generation(self.os_version)

    @property
    def newest_os_generation(self) -> int:
        """The same of the newest system; where none is stated, there is the oldest alone."""
        return self._generation(self.newest_os_version or self.os_version)

    def serving(self, generation: int) -> Target:
        """The device as far as it runs a system of some generation or a newer one.

        A recipe chooses within the systems that a device has: with a newer deployment target, its bundle is for fewer.
        """
        if not self.os_generation < generation <= self.newest_os_generation:
            return self
        major = generation - 3 if self.os == "macOS" and generation < 26 else generation
        return self.model_copy(update={"os_version": f"{major}.0"})

    def _generation(self, version: str) -> int:
        major = int(version.split(".")[0])
        return major + 3 if self.os == "macOS" and major < 26 else major
