"""Several recipes in one command line, one after the other: `recipe=a,b`, `recipe='sd15-*'`, `recipe=./FOLDER`."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sdbuild.paths import user_path
from sdbuild.plan.errors import PlanError
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes, is_path

_WORD = "recipe="
_PATTERN = "*?["


def command_lines(words: Sequence[str]) -> list[list[str]]:
    """The command lines that one with several recipes stands for; the same one where it names a single recipe.

    Raises:
        PlanError: a pattern matches no recipe, or a folder holds none.
    """
    index = next((number for number, word in enumerate(words) if word.startswith(_WORD)), None)
    if index is None:
        return [list(words)]
    names = recipes_of(words[index].removeprefix(_WORD))
    return [[*words[:index], f"{_WORD}{name}", *words[index + 1 :]] for name in names]


def recipes_of(value: str) -> list[str]:
    """The recipes that `recipe=VALUE` names: names, paths, patterns of names, or paths of folders, with commas between.

    Raises:
        PlanError: a pattern matches no recipe, or a folder holds none.
    """
    if user_path(value).is_file():  # a comma may be part of a file's name
        return [value]
    names: dict[str, None] = {}
    for part in value.split(",") if "," in value else [value]:
        names |= dict.fromkeys(_matching(part.strip()) if part.strip() else ())
    return list(names) or [value]


def run_each(lines: Sequence[Sequence[str]], run: Callable[[Sequence[str]], int]) -> int:
    """Run command lines one after the other, go on past failures, and say at the end which failed.

    Returns:
        The highest exit status.
    """
    failed: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = next(word for word in line if word.startswith(_WORD)).removeprefix(_WORD)
        print(f"recipe {number} of {len(lines)}: {name}", file=sys.stderr, flush=True)
        if status := run(line):
            failed[name] = status
            if status >= _SIGNALLED:
                break
    done = f"{len(lines)} recipes: {len(lines) - len(failed)} without a failure"
    print(f"{done}; failed: {', '.join(failed)}" if failed else done, file=sys.stderr)
    return max(failed.values(), default=0)


_SIGNALLED = 128
"""Statuses from here on mean that a signal ended the run, which ends the others too."""


def _matching(part: str) -> list[str]:
    folder = user_path(part)
    if is_path(part) and folder.is_dir():  # a name is a name, whatever else is called so
        found = [str(path) for path in find_recipes([folder])]
        if not found:
            raise PlanError(f"{_WORD}{part}: there is no recipe in that folder; recipes are files called NAME.yaml")
        return found
    if not any(sign in part for sign in _PATTERN):
        return [part]
    known = [path.stem for path in find_recipes(catalogue_directories("recipes", Path.cwd()))]
    matching = fnmatch.filter(known, part)
    if not matching:
        raise PlanError(f"{_WORD}{part}: matches no recipe; `recipes` lists those that there are")
    return matching
