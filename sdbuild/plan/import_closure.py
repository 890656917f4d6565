"""Which of our source files a module consists of: its own, and those of all modules of ours that it leads to.

Read off the sources, nothing is imported. What counts as leading to a module:

- an import anywhere in the file, within functions too, but for those that only type checkers see;
- the full name of a module as a text, `"sdbuild.coreml.linear"` or `"sdbuild.coreml.linear:run"`, which is how
  registries name what they load later, with `.*` in the place of all modules of a package, `"sdbuild.models.*"`;
- the packages that a module lies in. Python runs them first, so what they import at their top counts as well; what
  their functions import does not, unless somebody imports the package for its own sake.

Files that are no Python source belong to the package in whose folder they lie.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_NAMED = re.compile(r"(?P<module>\w+(\.\w+)+(\.\*)?)(:\w+)?")


class ImportClosure:
    """The modules of one package, by its folder.

    Args:
        folder: the folder of the top-level package, which is named as the folder is.
        passed_over: modules that are neither part of any closure nor followed.
    """

    def __init__(self, folder: Path, passed_over: Sequence[str] = ()) -> None:
        self._folder = folder
        self._passed_over = frozenset(passed_over)
        self._known: dict[tuple[str, bool], tuple[tuple[str, bool], ...]] = {}

    def files(self, module: str) -> list[Path]:
        """Every file that the module consists of, sorted.

        Raises:
            LookupError: there is no such module.
        """
        if self._source(module) is None:
            raise LookupError(f"there is no module {module} in {self._folder}")
        return sorted({file for name in self.modules(module) for file in self._files_of(name)})

    def modules(self, module: str) -> list[str]:
        """The names of the modules whose files `files` returns."""
        waiting = [(module, True)]
        seen: set[tuple[str, bool]] = set()
        while waiting:
            step = waiting.pop()
            if step in seen or step[0] in self._passed_over:
                continue
            seen.add(step)
            waiting += self._next(*step)
        return sorted({name for name, _ in seen})

    def imports(self, module: str) -> list[str]:
        """The modules of ours that one module names itself, sorted; its packages are not among them."""
        return sorted({name for name, for_itself in self._next(module, True) if for_itself})

    def _next(self, module: str, for_itself: bool) -> tuple[tuple[str, bool], ...]:
        """The modules that one leads to, each with whether it is imported for its own sake."""
        if (module, for_itself) not in self._known:
            source = self._source(module)
            assert source is not None, module
            package, _, _ = (module, "", "") if source.name == "__init__.py" else module.rpartition(".")
            tree = ast.parse(source.read_text(encoding="utf-8"))
            names = set(_names(tree, package, within_functions=for_itself))
            found = {step for name in names for step in self._steps(name)}
            parent = module.rpartition(".")[0]
            self._known[module, for_itself] = tuple(sorted(found | ({(parent, False)} if parent else set())))
        return self._known[module, for_itself]

    def _steps(self, name: str) -> Iterator[tuple[str, bool]]:
        """A module for an imported name, which may be one of a module's attributes."""
        if name.split(".")[0] != self._folder.name:
            return
        if name.endswith(".*"):
            yield from ((module, True) for module in self._within(name.removesuffix(".*")))
            return
        if self._source(name) is not None:
            yield name, True
        elif self._source(owner := name.rpartition(".")[0]) is not None:
            yield owner, True

    def _within(self, package: str) -> Iterator[str]:
        """Every module of a package, in its packages too."""
        source = self._source(package)
        if source is None or source.name != "__init__.py":
            return
        for path in sorted(source.parent.rglob("*.py")):
            parts = path.relative_to(source.parent).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")])

    def _source(self, module: str) -> Path | None:
        top, *rest = module.split(".")
        if top != self._folder.name:
            return None
        path = self._folder.joinpath(*rest)
        found = (path / "__init__.py", path.with_name(f"{path.name}.py"))
        return next((candidate for candidate in found if candidate.is_file()), None)

    def _files_of(self, module: str) -> Iterator[Path]:
        source = self._source(module)
        assert source is not None, module
        yield source
        if source.name == "__init__.py":
            yield from _data_files(source.parent)


def _data_files(folder: Path) -> Iterator[Path]:
    """What is no Python source in a folder, and in its folders that are no packages."""
    for path in folder.iterdir():
        if path.is_dir():
            if not (path / "__init__.py").exists() and path.name != "__pycache__":
                yield from _data_files(path)
        elif path.suffix not in (".py", ".pyc"):
            yield path


def _names(node: ast.AST, package: str, *, within_functions: bool) -> Iterator[str]:
    """The full names that a piece of source imports or writes as a text."""
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom():
            yield from (f"{_absolute(node, package)}.{alias.name}" for alias in node.names)
        case ast.Constant(value=str(text)):
            if named := _NAMED.fullmatch(text):
                yield named["module"]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() if not within_functions:
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            for other in node.orelse:
                yield from _names(other, package, within_functions=within_functions)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _names(child, package, within_functions=within_functions)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that a `from` statement imports from; a relative one counts from the package."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)
