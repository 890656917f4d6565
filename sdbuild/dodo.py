"""The tasks of `doit recipe=NAME …`: a plan of the recipe, handed to doit; `sdbuild` runs this file too."""

import os
import sys
from pathlib import Path

import doit

# doit changes into this file's folder and makes it importable; paths on the command line are relative to the user's.
os.chdir(doit.get_initial_workdir() or Path.cwd())
sys.path[:] = [path for path in sys.path if path != str(Path(__file__).parent)]

from sdbuild.cli import main  # noqa: E402
from sdbuild.console.command import command_line_variables  # noqa: E402
from sdbuild.console.many import recipes_of  # noqa: E402
from sdbuild.console.program import open_session, report  # noqa: E402
from sdbuild.console.tasks import doit_config, doit_tasks  # noqa: E402
from sdbuild.errors import SdbuildError  # noqa: E402

if len(recipes_of(command_line_variables().get("recipe", ""))) > 1:
    sys.exit(main(sys.argv[1:]))

try:
    SESSION = open_session()
except SdbuildError as error:
    sys.exit(report(error))

DOIT_CONFIG = doit_config(SESSION)


def task_actions():  # type: ignore[no-untyped-def]
    """One task an action."""
    yield from doit_tasks(SESSION)
