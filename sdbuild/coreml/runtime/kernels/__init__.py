"""Torch implementations of MIL operations; importing this package fills `registry.KERNELS`."""

from sdbuild.coreml.runtime.kernels import (  # noqa: F401 - imported to register their kernels
    activations,
    compression,
    convolution,
    creation,
    elementwise,
    indexing,
    linear,
    normalization,
    reductions,
    resizing,
    shapes,
)
from sdbuild.coreml.runtime.kernels.registry import KERNELS, Kernel

__all__ = ["KERNELS", "Kernel"]
