"""Every command that people type: a module here is one, called as the command is, with a class `Command`.

Nothing else lists them but `pyproject.toml`, in which `doit` looks for them; what they share is in `sdbuild.console`.
"""

import importlib
import pkgutil

from sdbuild.console.plain_errors import PlainErrors

COMMAND_NAMES: tuple[str, ...] = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_command(name: str) -> type[PlainErrors]:
    """Import a command.

    Raises:
        TypeError: its module has no class `Command`, or the class lacks what the program and its reference need.
    """
    where = f"{__name__}.{name}"
    found = getattr(importlib.import_module(where), "Command", None)
    if not isinstance(found, type) or not issubclass(found, PlainErrors):
        raise TypeError(
            f"{where}.Command must be a VariableCommand or a TaskCommand of sdbuild.console, it is {found!r}"
        )
    if found.name != name:
        raise TypeError(f"{where}.Command is called {found.name!r}; a command and its module have one name")
    if not getattr(found, "doc_purpose", ""):
        raise TypeError(f"{where}.Command has no doc_purpose, which the help and the reference show")
    return found


def all_commands() -> dict[str, type[PlainErrors]]:
    """Every command by name."""
    return {name: load_command(name) for name in COMMAND_NAMES}
