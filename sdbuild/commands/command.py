"""What commands are made of, and the variables of the command line."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from doit import doit_cmd
from doit.cmd_base import Command

from sdbuild.commands.plain_errors import PlainErrors
from sdbuild.plan.errors import PlanError, nearest


def command_line_variables() -> dict[str, str]:
    """The `name=value` words of the command line."""
    # doit.get_var gives one at a time; unknown names can be refused only by one who sees all of them.
    return dict(doit_cmd._CMDLINE_VARS or {})


class OwnCommand(PlainErrors, Command):  # type: ignore[misc]
    """A command that takes variables alone."""

    variables: ClassVar[tuple[str, ...]] = ()

    def execute(self, opt_values: Mapping[str, Any], pos_args: Sequence[str]) -> int:
        """Run the command; the exit status is 0, or that of the error."""
        if pos_args:
            hint = nearest(pos_args[0], self.variables)
            raise PlanError(f"{self.name}: unknown word '{pos_args[0]}'{hint}; usage: {self.name} {self.doc_usage}")
        return self.act(command_line_variables())

    def act(self, variables: Mapping[str, str]) -> int:
        """Do what the command is for and return the exit status."""
        raise NotImplementedError
