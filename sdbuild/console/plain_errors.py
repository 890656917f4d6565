"""What every command shares: a user's mistake is said in plain words and gives exit status 2, never a traceback."""

from typing import Any, ClassVar

from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from sdbuild.console.endings import ending_of
from sdbuild.console.variables import Variable
from sdbuild.plan.errors import PlanError, nearest


class PlainErrors:
    """A mixin that stands before one of doit's command classes.

    Attributes:
        name: what people type.
        doc_purpose: one line for the help and the reference.
        doc_usage: what may follow the name.
        guide: the how-to that shows it, by the name of its file in `docs/how-to`; empty for none.
        variables: the `name=value` words that it takes.
    """

    name: ClassVar[str]
    doc_purpose: ClassVar[str]
    doc_usage: ClassVar[str]
    guide: ClassVar[str] = ""
    variables: ClassVar[tuple[Variable, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if strange := [each for each in cls.variables if not isinstance(each, Variable)]:
            where = f"{cls.__module__}.{cls.__name__}.variables"
            raise TypeError(f"{where} must be of sdbuild.console.variables.Variable, there is {strange[0]!r}")

    def parse_execute(self, in_args: list[str]) -> int:
        """Run the command and return the exit status."""
        return ending_of(lambda: self._run(in_args))

    def _run(self, in_args: list[str]) -> int:
        try:
            return int(super().parse_execute(in_args) or 0)  # type: ignore[misc]
        except InvalidCommand as error:
            raise PlanError(self._explain(error)) from error
        except (CmdParseError, InvalidDodoFile, InvalidTask) as error:
            # doit adds every option that there is, as Python would print it.
            raise PlanError(str(error).partition(" (parsing options")[0].strip()) from error

    def _explain(self, error: InvalidCommand) -> str:
        if error.not_found is None:
            return str(error)
        me: Any = self
        words = [*me.loader.cmd_names, *(task.name for task in me.task_list)]
        return (
            f"'{error.not_found}' is neither a command nor a task of this recipe{nearest(error.not_found, words)}\n"
            "  `list --all` shows the tasks, `help` the commands"
        )
