"""Draw how the cost of a conversion grows with the model.

    python -m tests.benchmarks.plot_cost docs/explanation/cost.jsonl docs/explanation/cost.png

Each line of the input is a measurement of `bench_convert` with the model's number of parameters added. Needs
matplotlib, which is in the extra `benchmarks`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.measurements.read_text().splitlines()]
    rows.sort(key=lambda row: row["parameters"])
    figure, (seconds, memory) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    parameters = [row["parameters"] / 1e6 for row in rows]
    for axes, title, values in (
        (seconds, "processor seconds", [row["cpu_seconds"] for row in rows]),
        (memory, "peak anonymous memory, GB", [row["peak_anonymous"] / 1e9 for row in rows]),
    ):
        axes.plot(parameters, values, "o", color="tab:blue")
        for x, y, row in zip(parameters, values, rows, strict=True):
            axes.annotate(row["name"], (x, y), textcoords="offset points", xytext=(6, 6), fontsize=8)
        axes.set(title=title, xlabel="parameters of the UNet, millions", xscale="symlog", ylim=(0, 1.2 * max(values)))
        axes.set_xlim(0.5, 60000)
        axes.grid(alpha=0.3)
    figure.savefig(arguments.out, dpi=120, metadata={"Software": ""})


if __name__ == "__main__":
    main()
