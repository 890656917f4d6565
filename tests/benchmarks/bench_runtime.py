"""Time and peak memory of the reference runtime against eager torch: SD 1.5's UNet at 512 × 512, random weights.

Each contestant runs in a process of its own, one after the other, three predictions each:

    python -m tests.benchmarks.bench_runtime [--work DIRECTORY] [--attention ORIGINAL]

CPU seconds are printed beside the wall-clock ones, because they stay meaningful on a machine that has other work too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RUNS = 3
INPUTS = {"sample": (2, 4, 64, 64), "timestep": (2,), "encoder_hidden_states": (2, 768, 1, 77)}


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in INPUTS.items()}
    return values | {"timestep": np.full(2, 981, np.float32)}


def checkpoint(work: Path) -> Path:
    """A UNet of SD 1.5's size with random half-precision weights."""
    import torch
    from diffusers import UNet2DConditionModel

    folder = work / "unet"
    if not folder.exists():
        torch.manual_seed(0)
        UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).half().save_pretrained(
            folder
        )
    return folder


def convert(work: Path, attention: str, precision: str) -> None:
    """Write the package that the runtime loads."""
    from sdbuild.coreml.convert import convert as to_package
    from sdbuild.models.build import build

    out = work / f"{attention}_{precision}" / "Unet.mlpackage"
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    model = build("unet", checkpoint(work), attention_implementation=attention)
    to_package(
        model.module,
        model.inputs,
        model.outputs,
        model.weights,
        out,
        precision=precision,  # type: ignore[arg-type]
        deployment_target="iOS16",
        float32_modules=model.float32_modules,
    )


def eager(work: Path) -> Callable[[], np.ndarray]:
    """Diffusers' own module in float32, its attention fused by torch."""
    import torch
    from diffusers import UNet2DConditionModel

    module = UNet2DConditionModel.from_pretrained(work / "unet", torch_dtype=torch.float32).eval()
    values = inputs()
    text = values["encoder_hidden_states"].squeeze(2).transpose(0, 2, 1).copy()
    tensors = [torch.from_numpy(value) for value in (values["sample"], values["timestep"], text)]

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return module(*tensors, return_dict=False)[0].numpy()

    return predict


def runtime(package: Path, precision: str) -> Callable[[], np.ndarray]:
    from sdbuild.coreml.runtime import Model

    model = Model(package, precision)  # type: ignore[arg-type]
    return lambda: model.predict(inputs())["noise_pred"]


def peak_gigabytes() -> float:
    """The largest resident memory since the last reset, mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("this benchmark reads /proc, so it needs Linux")


def measure(work: Path, contestant: str, attention: str) -> None:
    if contestant == "eager torch":
        predict = eager(work)
    else:
        stored, precision = contestant.split(" in ")
        predict = runtime(work / f"{attention}_{stored}" / "Unet.mlpackage", precision)
    Path("/proc/self/clear_refs").write_text("5")  # loading is not compared: start the peak anew
    walls, processor = [], []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        result = predict()
        walls.append(time.perf_counter() - wall)
        processor.append(time.process_time() - cpu)
    np.save(work / f"{contestant}.npy", result)
    print(json.dumps({"wall": min(walls), "cpu": min(processor), "peak": peak_gigabytes()}))


def report(work: Path, attention: str) -> None:
    for precision in ("float32", "float16"):
        subprocess.run(
            [sys.executable, "-m", __spec__.name, "--work", work, "--attention", attention, "--convert", precision],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    print(f"{attention}\n{'':20}{'wall s':>8}{'CPU s':>8}{'ratio':>7}{'peak GB':>9}{'ratio':>7}{'PSNR dB':>9}")
    base: dict[str, float] = {}
    for contestant in ("eager torch", "float32 in fp32", "float16 in fp32", "float16 in fp16"):
        command = [sys.executable, "-m", __spec__.name, "--work", work, "--attention", attention, "--one", contestant]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures = json.loads(output.splitlines()[-1])
        base = base or figures
        got, expected = (np.load(work / f"{name}.npy").astype(np.float64) for name in (contestant, "eager torch"))
        noise = np.sqrt(np.mean((got - expected) ** 2))
        decibels = 20 * np.log10(np.abs(expected).max() / noise) if noise else float("inf")
        print(
            f"{contestant:20}{figures['wall']:8.2f}{figures['cpu']:8.2f}{figures['cpu'] / base['cpu']:7.2f}"
            f"{figures['peak']:9.2f}{figures['peak'] / base['peak']:7.2f}{decibels:9.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--attention", default="ORIGINAL", choices=["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"])
    parser.add_argument("--convert", help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        convert(options.work, options.attention, options.convert)
    elif options.one:
        measure(options.work, options.one, options.attention)
    elif options.work:
        report(options.work, options.attention)
    else:
        with tempfile.TemporaryDirectory() as work:
            report(Path(work), options.attention)


if __name__ == "__main__":
    main()
