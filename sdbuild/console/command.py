"""What a command of ours is: a name, a purpose, the variables that it takes, and what it does."""

from collections.abc import Mapping, Sequence
from typing import Any

from doit import doit_cmd
from doit.cmd_base import Command

from sdbuild.console.many import recipes_of
from sdbuild.console.plain_errors import PlainErrors
from sdbuild.console.variables import usage
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.options import check_variables


def command_line_variables() -> dict[str, str]:
    """The `name=value` words of the command line."""
    # doit.get_var gives one at a time; unknown names can be refused only by one who sees all of them.
    return dict(doit_cmd._CMDLINE_VARS or {})


def check_repeated(words: Sequence[str]) -> None:
    """Refuse a variable that is given twice: doit would take the last and say nothing.

    Raises:
        PlanError: names it.
    """
    seen: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            continue
        if name in seen:
            raise PlanError(f"'{name}=' is given twice, as {seen[name]!r} and {value!r}; keep one")
        seen[name] = value


class VariableCommand(PlainErrors, Command):  # type: ignore[misc]
    """A command that takes variables, and the options that its `cmd_options` describe in doit's form.

    What it finds goes to standard output, all else to standard error. A subclass states `name`, `doc_purpose` and
    `variables`; its usage line follows from them.

    Attributes:
        options: the values of `cmd_options`.
    """

    options: Mapping[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "doc_usage" not in vars(cls):
            cls.doc_usage = usage(cls.variables)

    def execute(self, opt_values: Mapping[str, Any], pos_args: Sequence[str]) -> int:
        """Check the words and run the command; the exit status is 0, or that of the error."""
        known = self.known()
        if pos_args:
            hint = nearest(pos_args[0], known)
            raise PlanError(f"{self.name}: unknown word '{pos_args[0]}'{hint}; usage: {self.name} {self.doc_usage}")
        variables = command_line_variables()
        check_variables(variables, known, self.name)
        for variable in self.variables:
            if variable.required and variable.name not in variables:
                raise PlanError(f"{self.name}: {variable.name}= is missing: {variable.meaning}")
        self.options = opt_values
        names = recipes_of(variables.get("recipe", ""))
        if len(names) < 2:
            return self.act(variables)
        return max(self.act({**variables, "recipe": name}) for name in names)

    def known(self) -> list[str]:
        """The names of its variables."""
        return [variable.name for variable in self.variables]

    def act(self, variables: Mapping[str, str]) -> int:
        """Do what the command is for and return the exit status; names are known, values are not checked yet."""
        raise NotImplementedError
