"""The tables of the documentation that follow from the program itself.

`python -m sdbuild.console.reference` rewrites them in place, each between `<!-- generated: NAME -->` and
`<!-- end -->`; a test says when that is due.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sdbuild.commands import all_commands, load_command
from sdbuild.console.plain_errors import PlainErrors
from sdbuild.console.variables import BUILD, Variable
from sdbuild.stages import load_stage, stage_names

_BLOCK = re.compile(r"(<!-- generated: (?P<name>\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_DOCS = Path(__file__).parents[2] / "docs"


def _commands() -> str:
    """A row a command, the one that needs no name first."""
    found = sorted(all_commands().items(), key=lambda item: item[0] != "run")
    return _table(("command", "what it does"), ((_typed(name, each), _purpose(each)) for name, each in found))


def _typed(name: str, command: type[PlainErrors]) -> str:
    words = ["doit"] if name == "run" else ["doit", name]
    return f"`{' '.join([*words, command.doc_usage]).strip()}`"


def _purpose(command: type[PlainErrors]) -> str:
    guide = f" ([how](../how-to/{command.guide}.md))" if command.guide else ""
    return command.doc_purpose + guide


def _variables(variables: Iterable[Variable]) -> str:
    rows = ((f"`{each.name}={each.value}`", each.meaning, each.default) for each in variables)
    return _table(("variable", "meaning", "default"), rows)


def _stages() -> str:
    rows = ((f"`{stage.name}`", stage.reads, stage.result) for stage in map(load_stage, stage_names()))
    return _table(("stage", "inputs", "result"), rows)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def generated_tables() -> Mapping[str, str]:
    """Every generated table by name."""
    return {
        "commands": _commands(),
        "stages": _stages(),
        "build-variables": _variables(BUILD),
        "generate-variables": _variables(load_command("generate").variables),
        "diagnose-variables": _variables(load_command("diagnose").variables),
    }


def pages() -> Mapping[Path, str]:
    """Every page with generated tables, as it should be.

    Raises:
        KeyError: a page asks for a table that does not exist.
    """
    tables = generated_tables()
    found = {}
    for page in sorted(_DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        written = _BLOCK.sub(lambda block: f"{block[1]}\n{tables[block['name']]}\n{block[4]}", text)
        if _BLOCK.search(text):
            found[page] = written
    return found


def main() -> None:
    """Rewrite the pages."""
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
