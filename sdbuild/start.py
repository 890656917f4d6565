"""The first file of a Python process of ours: `python -P start.py IMPORT_PATH PROGRAM ARGUMENT …`.

The program is a module's name, or the path of a file that is run without importing the package around it.

Run by its path, so that nothing is imported before the import path is what `sdbuild.isolation` says, and this package
is the one that it lies in.
"""

import os
import runpy
import sys
import typing

_ = typing  # loaded by the package itself, here from the standard library


def prepare(import_path: list[str]) -> None:
    """Import from these places alone, and this package from where this file is."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (nothing more is imported here)
    sys.path[:] = [root]
    import sdbuild

    assert sdbuild.__file__ is not None
    sys.path[:] = import_path


if __name__ == "__main__":
    prepare(sys.argv[1].split(os.pathsep))
    sys.argv[:] = sys.argv[2:]
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
