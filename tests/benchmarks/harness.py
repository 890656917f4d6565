"""Run a piece of work in a process of its own and measure it: seconds, peak resident and peak anonymous memory.

Resident memory counts pages of mapped files too, which the system takes back when it needs them; anonymous memory is
what the work itself holds. Both are sampled from `/proc` twenty times a second on Linux; elsewhere psutil knows the
resident part only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

INTERVAL = 0.05


@dataclass(frozen=True)
class Measurement:
    """What one process took.

    Attributes:
        name: what was done.
        seconds: wall time, from the start of the process to its end.
        cpu_seconds: processor time of all its threads, which other work on the machine disturbs less.
        peak_rss: bytes.
        peak_anonymous: bytes; 0 where the system does not tell.
    """

    name: str
    seconds: float
    cpu_seconds: float
    peak_rss: int
    peak_anonymous: int


def measure(name: str, command: Sequence[str]) -> Measurement:
    """Run `command` to its end.

    Raises:
        RuntimeError: the command failed; its last lines are in the message.
    """
    with tempfile.TemporaryFile("w+") as log:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        rss = anonymous = 0
        cpu = 0.0
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                now_rss, now_anonymous = _memory(process.pid)
                times = watched.cpu_times()
                cpu = times.user + times.system
            except (OSError, psutil.Error):  # it has just ended
                break
            rss, anonymous = max(rss, now_rss), max(anonymous, now_anonymous)
            time.sleep(INTERVAL)
        status = process.wait()
        seconds = time.monotonic() - start
        if status:
            log.seek(0)
            raise RuntimeError(f"{name}: exit status {status}\n" + "".join(log.readlines()[-20:]))
    return Measurement(name, seconds, cpu, rss, anonymous)


def _memory(pid: int) -> tuple[int, int]:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return psutil.Process(pid).memory_info().rss, 0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    resident, anonymous = (int(fields.get(key, "0 kB").split()[0]) * 1024 for key in ("VmRSS", "RssAnon"))
    return resident, anonymous


def report(measurements: Sequence[Measurement], baseline: str | None = None) -> str:
    """A table of measurements, with ratios to the one called `baseline`, and one line of JSON for each."""
    reference = next((one for one in measurements if one.name == baseline), None)
    lines = [f"{'':36}{'wall s':>9}{'cpu s':>9}{'rss GB':>9}{'anon GB':>9}"]
    for one in measurements:
        row = f"{one.name:36}{one.seconds:9.1f}{one.cpu_seconds:9.1f}{one.peak_rss / 1e9:9.2f}"
        row += f"{one.peak_anonymous / 1e9:9.2f}"
        if reference is not None and one is not reference:
            faster, smaller = reference.seconds / one.seconds, reference.peak_rss / one.peak_rss
            row += f"   {baseline}: time ×{faster:.1f}, rss ×{smaller:.1f}"
        lines.append(row)
    lines += [json.dumps(asdict(one)) for one in measurements]
    return "\n".join(lines)


def python(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of ours in a fresh interpreter."""
    return [sys.executable, "-W", "ignore", "-m", module, *arguments]
