"""What stands beside weights of 8 bits, by its name; what it means is said in `sdbuild.checkpoints.float8`."""

from __future__ import annotations

from sdbuild.checkpoints.account.entry import Use

SCALES = ("scale_weight", "weight_scale")
"""What a weight's scale is called in its place; `X.weight` has `X.scale_weight`."""
MARKER = "scaled_fp8"
DESCRIPTION = "comfy_quant"
# They scale what goes into a layer, for arithmetic of 8 bits, which is not done here.
_OF_INPUTS = ("scale_input", "input_scale")


def is_beside(name: str) -> bool:
    """Whether a name is that of a scale, a marker or a description, not of a weight."""
    return name.rpartition(".")[2] in (*SCALES, *_OF_INPUTS, MARKER, DESCRIPTION)


def why_beside(name: str) -> tuple[Use, str]:
    """What becomes of such a name."""
    if name.rpartition(".")[2] in _OF_INPUTS:
        return Use.HARMLESS, "scales a layer's inputs for arithmetic of 8 bits, which is not done here"
    return Use.USED, "says how weights of 8 bits are scaled"
