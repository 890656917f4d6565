"""The table of operations in the reference documentation.

Run ``python -m sdbuild.coreml.runtime.coverage docs/reference/operations.md`` after adding a kernel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sdbuild.coreml.runtime.kernels import KERNELS, Kernel
from sdbuild.coreml.runtime.model import SPECIFICATION_VERSIONS

_KINDS = {
    "computing": "rounded to half after each operation in `fp16` precision",
    "moving": "moves values, so nothing is rounded",
    "constant": "decompressed when an operation asks for the weight, with coremltools' own roundings",
}
_HEADING = """# Operations of the reference runtime

What `sdbuild.coreml.runtime` can execute, measured against the operations that coremltools defines for ML Programs of
iOS 16, 17 and 18. A package with any other operation is refused when it is loaded, and the message names all of them.
This page is generated: `python -m sdbuild.coreml.runtime.coverage docs/reference/operations.md`.
"""
_ABSENT = """## Not implemented

{operations}.

These are control flow, lists, recurrent networks, random numbers, classifiers, object detection, state and image
warping, which no model of the Stable Diffusion families needs. `resize` with nearest neighbours runs in the sampling
mode `DEFAULT` alone, because which neighbour the other modes take is not documented."""


def render() -> str:
    """The page's text."""
    known = _defined_operations()
    present = sorted(name for name in known if name in KERNELS)
    absent = sorted(name for name in known if name not in KERNELS)
    lines = [
        _HEADING,
        f"{len(present)} of {len(known)} operations run.\n",
        "| operation | systems whose definition runs | kind |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{name}` | {', '.join(known[name])} | {_kind(name, KERNELS[name])} |" for name in present]
    lines += ["", "Kinds:", ""]
    lines += [f"- {kind}: {meaning}." for kind, meaning in _KINDS.items()]
    lines += [
        "",
        _ABSENT.format(operations=", ".join(f"`{name}`" for name in absent)),
    ]
    return "\n".join(lines) + "\n"


def _kind(name: str, kernel: Kernel) -> str:
    if name.startswith("constexpr_"):
        return "constant"
    return "moving" if kernel.exact else "computing"


def _defined_operations() -> dict[str, list[str]]:
    """Every operation of the supported specification versions, with the systems that can use it."""
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    result: dict[str, list[str]] = {}
    operations: dict[str, dict[Any, Any]] = SSAOpRegistry.core_ops
    for name, versions in operations.items():
        systems = [
            system
            for number, system in SPECIFICATION_VERSIONS.items()
            if any(version.value == number for version in versions)
        ]
        if systems and not name.startswith("_") and name != "const":
            result[name] = systems
    return result


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
