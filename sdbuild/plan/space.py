"""Whether what a build will write fits the disk, asked before any work: hours later it would be too late."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sdbuild.errors import SdbuildError
from sdbuild.plan.action import Action
from sdbuild.plan.costs import Costs

_GB = 1e9
# A log, records and what the estimate leaves out; and room for the machine to live.
_MARGIN = 100_000_000


class SpaceError(SdbuildError):
    """The disk is too small for what is to be built."""


def check_space(to_run: Iterable[Action], costs: Costs, cache: Path) -> None:
    """Refuse a build whose results would not fit the cache's disk.

    Args:
        to_run: the actions that the cache has no result of.
        costs: what each is expected to write; what is not known counts for nothing.
        cache: the store's root; need not exist.

    Raises:
        SpaceError: says how much is needed, how much is free, and what to free.
    """
    # What is fetched lies in the Hub's cache too, as a rule on the same disk, until its blobs are taken into ours.
    needed = sum((cost.bytes or 0) + (cost.download or 0) for cost in map(costs.__getitem__, to_run))
    free = shutil.disk_usage(_existing(cache)).free
    if needed and needed + _MARGIN > free:
        raise SpaceError(
            f"{cache}: what is to be built takes about {needed / _GB:.2f} GB, and {free / _GB:.2f} GB of this disk are "
            f"free. Free {(needed + _MARGIN - free) / _GB:.2f} GB (`sdbuild cache gc` removes what no recipe stands "
            "on), or set SDBUILD_CACHE to a folder on another disk. `sdbuild plan` shows the size of each result."
        )


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path
