"""Python processes that import nothing from the folder in which the user happens to be.

Python puts the working folder first among the places to import from, when it is started with ``-m`` or ``-c``, and
where ``PYTHONPATH`` has an empty entry. A `yaml.py` or a folder `torch` that lies there would be run, and would shape
results outside of every key. So this program's own processes, and all that they start, look only where the installed
packages are.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The folder of this package."""
_ROOT = str(PACKAGE.parent)


def import_path() -> list[str]:
    """Where to import from: as this process does, but for the working folder.

    Where the package itself stands in the working folder (a checkout), that is the last place to look.
    """
    here = _real("")
    path = [os.path.abspath(folder) for folder in sys.path if _real(folder) != here]  # noqa: PTH100 ("" means here)
    return path if any(_real(folder) == _real(_ROOT) for folder in path) else [*path, _ROOT]


def leave_working_folder() -> None:
    """Let this process, and every Python process that it starts, import nothing more from the working folder."""
    sys.path[:] = import_path()
    os.environ["PYTHONSAFEPATH"] = "1"


def command(program: str, *arguments: str) -> list[str]:
    """The command line that runs a module or a file of ours in a process of its own; to be run in `environment()`."""
    start = str(PACKAGE / "start.py")
    return [sys.executable, "-P", start, os.pathsep.join(import_path()), program, *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment for a Python process of ours: nothing in it adds a place to import from."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PYTHONSAFEPATH": "1", **more}


def _real(folder: str) -> str:
    return os.path.realpath(folder or os.curdir)
