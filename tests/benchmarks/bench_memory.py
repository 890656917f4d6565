"""Count what programs of real size need in memory, beside what their configurations tell.

    python -m tests.benchmarks.bench_memory

Weights are zeros that stand in sparse files: only their shapes matter. The figures stand in docs/explanation/memory.md.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from sdbuild.checkpoints import topology
from sdbuild.coreml.convert import convert
from sdbuild.coreml.footprint import footprint
from sdbuild.coreml.package import Package
from sdbuild.models.build import build
from tests.benchmarks.checkpoints import PIPELINES

JOBS = (
    ("sd15", "unet", 64, "SPLIT_EINSUM", "float16"),
    ("sd15", "unet", 64, "SPLIT_EINSUM_V2", "float16"),
    ("sd15", "unet", 64, "ORIGINAL", "float16"),
    ("sd15", "unet", 96, "SPLIT_EINSUM", "float16"),
    ("sd21", "unet", 96, "ORIGINAL", "float16"),
    ("sdxl", "unet", 96, "SPLIT_EINSUM", "float16"),
    ("sdxl", "unet", 128, "ORIGINAL", "float16"),
    ("sd15", "controlnet", 64, "SPLIT_EINSUM", "float16"),
    ("sd15", "vae_decoder", 64, "ORIGINAL", "float16"),
    ("sd15", "vae_decoder", 128, "ORIGINAL", "float32"),
    ("sd15", "vae_encoder", 128, "ORIGINAL", "float32"),
)
FAMILIES = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}
NOT_IN_CONTROLNETS = ("up_block_types", "out_channels", "sample_size", "center_input_sample")


def configuration(model: str, component: str) -> dict[str, Any]:
    if component != "controlnet":
        return dict(PIPELINES[model]["vae" if component.startswith("vae") else component])
    unet = {key: value for key, value in PIPELINES[model]["unet"].items() if key not in NOT_IN_CONTROLNETS}
    extra = {"conditioning_embedding_out_channels": [16, 32, 96, 256], "conditioning_channels": 3}
    return unet | extra | {"_class_name": "ControlNetModel", "controlnet_conditioning_channel_order": "rgb"}


def write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def count(model: str, component: str, size: int, attention: str, precision: str, folder: Path) -> int | None:
    """Bytes of activations of one converted component."""
    config = configuration(model, component)
    shapes = {"unet": topology.unet, "controlnet": topology.controlnet}.get(component, topology.vae)
    (folder / "config.json").write_text(json.dumps(config))
    write_zeros(folder / "diffusion_pytorch_model.safetensors", shapes(config))
    made = build(
        component,
        folder,
        attention_implementation=attention,
        latent_height=size,
        latent_width=size,
        family=FAMILIES[model],
    )
    out = folder / "out" / "Model.mlpackage"
    out.parent.mkdir()
    kept = made.float32_modules
    weights = made.weights
    convert(
        made.module,
        made.inputs,
        made.outputs,
        weights,
        out,
        precision="float32" if precision == "float32" else "float16",
        deployment_target="iOS16",
        float32_modules=kept,
    )
    return footprint(Package.open(out)).activations


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for job in JOBS:
        with tempfile.TemporaryDirectory() as folder:
            found = count(*job, Path(folder))
        print(*job, "unknown" if found is None else f"{found / 10**6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
