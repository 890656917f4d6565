"""The words that recipes and targets are written in: closed sets of values and the patterns of names."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from sdbuild.components.component import Component as Component
from sdbuild.compression import CHOICES, NONE


class AttentionImplementation(StrEnum):
    """How attention is written in the UNet and the ControlNets; the first three names are ml-stable-diffusion's."""

    ORIGINAL = "ORIGINAL"
    SPLIT_EINSUM = "SPLIT_EINSUM"
    SPLIT_EINSUM_V2 = "SPLIT_EINSUM_V2"
    SDPA = "SDPA"


class ComputeUnit(StrEnum):
    """The processors that Core ML may use; the names are those of MLComputeUnits in coremltools."""

    CPU_ONLY = "CPU_ONLY"
    CPU_AND_GPU = "CPU_AND_GPU"
    CPU_AND_NE = "CPU_AND_NE"
    ALL = "ALL"

    @property
    def may_use_neural_engine(self) -> bool:
        """Whether Core ML may put a model on the Neural Engine."""
        return self in (ComputeUnit.CPU_AND_NE, ComputeUnit.ALL)


class DeploymentTarget(StrEnum):
    """The oldest operating system that a bundle's models run on."""

    IOS16 = "iOS16"
    IOS17 = "iOS17"
    IOS18 = "iOS18"
    MACOS13 = "macOS13"
    MACOS14 = "macOS14"
    MACOS15 = "macOS15"

    @property
    def normalised(self) -> Literal["iOS16", "iOS17", "iOS18"]:
        """The iOS name of the same generation: the same operations and specification version, so the same artifacts."""
        match self:
            case DeploymentTarget.IOS16 | DeploymentTarget.MACOS13:
                return "iOS16"
            case DeploymentTarget.IOS17 | DeploymentTarget.MACOS14:
                return "iOS17"
            case DeploymentTarget.IOS18 | DeploymentTarget.MACOS15:
                return "iOS18"


def _no_truth_value(value: object) -> object:
    """Python counts True as 1, so a set of numbers would take `true`."""
    if isinstance(value, bool | float):
        raise PydanticCustomError("not_whole", "not a whole number", {"help": "write digits"})
    return value


SheetBits = Annotated[Literal[1, 2, 3, 4, 6, 8], BeforeValidator(_no_truth_value)]
if TYPE_CHECKING:
    Bits: TypeAlias = int | str
else:
    Bits = Annotated[Literal[(*CHOICES, NONE)], BeforeValidator(_no_truth_value)]
GroupSize = Annotated[int, BeforeValidator(_no_truth_value), Field(ge=1, le=4096)]
OneOrTwo = Annotated[Literal[1, 2], BeforeValidator(_no_truth_value)]
Precision = Literal["float16", "float32"]
OperatingSystem = Literal["iOS", "iPadOS", "macOS"]

NAME_PATTERN = r"^[a-z0-9]+([._-][a-z0-9]+)*$"
NAME_HELP = (
    "use small letters, digits and single `-`, `_` or `.` between them: the name becomes a file's and a folder's name"
)
NAME_LENGTH = 64
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]

# The parts of a pipeline that have bits and precision of their own besides components: all of a recipe's ControlNets,
# and all of its T2I-Adapters.
CONTROLNET = "controlnet"
T2I_ADAPTER = "t2i_adapter"
# SDXL's second denoiser, beside the base's; `refiner` of a recipe names its checkpoint.
UNET_REFINER = "unet_refiner"
Gate = Annotated[float, Field(ge=0, le=400)]
