"""The target as a validated value: the device that a bundle is built for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from sdbuild.recipe.recipe import Part
from sdbuild.recipe.vocabulary import AttentionImplementation, ComputeUnit, Name, OperatingSystem


class Target(Part):
    """A device profile: chip, memory, operating system, compute unit and limits."""

    name: Name = Field(description="The target's name; its file is called `NAME.yaml`.", examples=["iphone-15-pro"])
    device: str = Field(min_length=1, max_length=100, description="The device as its maker calls it.")
    chip: str = Field(min_length=1, max_length=100, description="The system on chip.", examples=["A17 Pro"])
    memory_gb: float = Field(gt=0, le=2048, description="The device's memory, in units of 2^30 bytes.")
    app_memory_gb: float = Field(
        gt=0, le=2048, description="What one app may use of it, in units of 2^30 bytes, before the system ends the app."
    )
    os: OperatingSystem = Field(description="The operating system.")
    os_version: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]?(\.[0-9]+){0,2}$")] = Field(
        description="The oldest version of it that the bundle must serve; in quotes.", examples=["17.0"]
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

    @property
    def os_generation(self) -> int:
        """The system's major version on iOS's scale (macOS 13 is 16, 14 is 17, 15 is 18; from 26 on they agree)."""
        major = int(self.os_version.split(".")[0])
        return major + 3 if self.os == "macOS" and major < 26 else major
