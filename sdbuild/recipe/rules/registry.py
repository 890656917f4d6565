"""Every preflight rule, for checking recipes, for `allow:` and for the reference documentation alike.

A rule is a function under `@rule(…)` in any module of this package: it needs no entry anywhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from sdbuild.recipe import rules
from sdbuild.recipe.rules.rule import Rule


def _find() -> Iterator[Rule]:
    """The rules of every module beside this one."""
    for module in pkgutil.iter_modules(rules.__path__, f"{rules.__name__}."):
        if module.name != __name__:
            yield from (value for value in vars(importlib.import_module(module.name)).values() if type(value) is Rule)


def _by_name(found: Iterator[Rule]) -> dict[str, Rule]:
    """The rules in the order of their names; two of one name are an error."""
    known: dict[str, Rule] = {}
    for rule in found:
        if known.setdefault(rule.name, rule) is not rule:
            raise ValueError(f"two preflight rules are called {rule.name!r}: {rule.check} and {known[rule.name].check}")
    return dict(sorted(known.items()))


RULES: dict[str, Rule] = _by_name(_find())
