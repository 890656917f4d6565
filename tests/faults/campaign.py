"""Faults by the thousand, by hand: `python -m tests.faults.campaign --moments 2000`; `--help` tells the other counts.

Prints a line for each that broke something, with the seed that brings it back, and a table of what was done at the end;
the exit status is 1 when anything broke.
"""

from __future__ import annotations

import argparse
import errno
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.ground import EVERYTHING, KILL, Ground, compile_shim, damage

_CODES = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS, KILL)
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_OTHER_BITS = "quantization.unet=4"


class Campaign:
    """What is done, and what it broke."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground = ground
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()

    def repeat(self, kind: str, times: int, once: Callable[[random.Random], None]) -> None:
        """Do one thing many times, each with a chance of its own."""
        for number in range(times):
            chance = random.Random(f"{self.seed} {kind} {number}")
            self.done[kind] += 1
            try:
                once(chance)
            except AssertionError as error:
                self.broken[kind] += 1
                print(f"{kind} {number}: {error}", flush=True)
                self.ground.clear()

    def moment(self, chance: random.Random) -> None:
        """A call that fails or kills, in a build from nothing or in a rebuild."""
        if chance.random() < 0.7:
            self.ground.clear()
            words: tuple[str, ...] = ()
        else:
            self.ground.run()
            words = (_OTHER_BITS,)
        at, code = chance.randint(1, self.ground.calls), chance.choice(_CODES)
        ended = self.ground.run(*words, kinds=EVERYTHING, moment=at, code=code)
        doing = f"{' '.join(words) or 'from nothing'}, call {at} with {errno.errorcode.get(code, 'SIGKILL')}"
        if words:
            assert not ended.hung, doing
            assert "Traceback" not in ended.err + ended.out, f"{doing}\n{ended.err}"
            self.ground.must_recover(doing)
        else:
            self.ground.must_hold(ended, doing)

    def signal(self, chance: random.Random) -> None:
        """A signal at a random moment."""
        self.ground.clear()
        number, after = chance.choice(_SIGNALS), chance.uniform(0.0, 0.8)
        ended = self.ground.run(after=after, signal=number)
        self.ground.must_hold(ended, f"{number.name} after {after:.3f} s")

    def builders(self, chance: random.Random) -> None:
        """Several builders at once, now and then one of them killed."""
        self.ground.clear()
        count = chance.randint(2, 4)
        faults = {"after": chance.uniform(0, 0.5), "signal": signal.SIGKILL} if chance.random() < 0.3 else {}
        for ended in self.ground.several(count, **faults):
            assert not ended.hung, "hung"
            assert "Traceback" not in ended.err, ended.err
            assert faults or ended.status == 0, f"{count} builders: status {ended.status}\n{ended.err}"
        self.ground.must_recover(f"{count} builders at once {faults}")

    def damages(self, chance: random.Random) -> None:
        """One file of cache or output that is not what it was."""
        if not (self.ground.folder / "build").is_dir():
            self.ground.run()
        self.ground.must_recover(damage(self.ground, chance))


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    for name, default in (("moments", 2000), ("signals", 200), ("builders", 50), ("damages", 500), ("seed", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        shim = compile_shim(Path(temporary))
        if shim is None:
            print("this needs Linux and a C compiler", file=sys.stderr)
            return 2
        ground = Ground(Path(temporary) / "ground", shim)
        campaign = Campaign(ground, asked.seed)
        campaign.repeat("moment", asked.moments, campaign.moment)
        campaign.repeat("signal", asked.signals, campaign.signal)
        campaign.repeat("builders", asked.builders, campaign.builders)
        campaign.repeat("damage", asked.damages, campaign.damages)
        ground.close()
    for kind, number in campaign.done.items():
        print(f"{kind}: {number} done, {campaign.broken[kind]} broke something")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if campaign.broken else 0


if __name__ == "__main__":
    sys.exit(main())
