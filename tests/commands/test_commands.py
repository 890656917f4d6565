"""A command is one file and one entry: what is missing or misnamed is an error that says where."""

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdbuild import commands
from sdbuild.commands import COMMAND_NAMES, all_commands, load_command
from sdbuild.console import command as command_module
from sdbuild.console import reference

TRIAL = """
from sdbuild.console.command import VariableCommand
from sdbuild.console.variables import RECIPE, Variable

class Command(VariableCommand):
    name = "trial"
    doc_purpose = "try what a command needs"
    variables = (RECIPE, Variable("colour", "NAME", "which colour", required=True))
    cmd_options = ({"name": "json", "long": "json", "type": bool, "default": False},)

    def act(self, variables):
        print(variables["colour"], self.options["json"])
        return 0
"""


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])

    def write(source: str) -> None:
        (tmp_path / "trial.py").write_text(source)

    yield write
    sys.modules.pop("sdbuild.commands.trial", None)


def test_a_file_is_enough_for_a_command(
    add: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(TRIAL)
    found = load_command("trial")
    assert found.doc_usage == "[recipe=NAME] colour=NAME"
    monkeypatch.setattr(command_module, "command_line_variables", lambda: {"colour": "red"})
    assert found().parse_execute(["--json"]) == 0  # type: ignore[no-untyped-call]
    assert capsys.readouterr().out == "red True\n"


@pytest.mark.parametrize(
    ("variables", "message"),
    [({}, "trial: colour= is missing: which colour"), ({"color": "red"}, "did you mean 'colour'")],
)
def test_its_variables_are_checked_before_it_runs(
    add: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    message: str,
) -> None:
    add(TRIAL)
    monkeypatch.setattr(command_module, "command_line_variables", lambda: variables)
    assert load_command("trial")().parse_execute([]) == 2  # type: ignore[no-untyped-call]
    written = capsys.readouterr()
    assert message in written.err
    assert written.out == ""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("class Command(", "class Trial(", "Command must be a VariableCommand or a TaskCommand"),
        ("class Command(VariableCommand)", "class Command", "Command must be a VariableCommand or a TaskCommand"),
        ('name = "trial"', 'name = "other"', "is called 'other'"),
        ("doc_purpose", "purpose", "has no doc_purpose"),
        ("(RECIPE,", '("recipe",', "must be of sdbuild.console.variables.Variable"),
    ],
)
def test_a_command_that_lacks_something_says_what(
    add: Callable[[str], None], before: str, after: str, message: str
) -> None:
    add(TRIAL.replace(before, after))
    with pytest.raises(TypeError, match=re.escape(message)):
        load_command("trial")


def test_doit_finds_every_command_and_no_other() -> None:
    document = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    listed = document["tool"]["doit"]["plugins"]["command"]
    expected = {name: f"sdbuild.commands.{name}:Command" for name in COMMAND_NAMES}
    assert listed == expected, "add to or remove from [tool.doit.plugins.command] in pyproject.toml"


def test_every_command_is_whole() -> None:
    assert list(all_commands()) == list(COMMAND_NAMES)


def test_every_generated_table_is_as_the_program_has_it() -> None:
    pages = reference.pages()
    assert len(pages) >= 3
    stale = [str(page) for page, text in pages.items() if page.read_text(encoding="utf-8") != text]
    assert not stale, "run python -m sdbuild.console.reference"
