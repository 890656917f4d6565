"""The digest of each stage's source, so that no change of it goes by without a decision.

A stage's version stands in every action key, and only a person knows whether a change of the source changes the result.
`tests/plan/stage_digests.json` holds the digest for which that was last decided; a test compares. After a change:

    python -m sdbuild.plan.stage_digests                    # which stages have changed
    python -m sdbuild.plan.stage_digests --raise convert    # the result is another: raise the version
    python -m sdbuild.plan.stage_digests --accept           # the results of all others are the same

Comments, layout and docstrings are no part of a digest.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sdbuild
from sdbuild import stages
from sdbuild.plan.errors import PlanError

_PACKAGE = Path(sdbuild.__file__).parent
RECORD = _PACKAGE.parent / "tests" / "plan" / "stage_digests.json"
_VERSION = re.compile(r"(?<=version=)\d+")

# What every stage is written in, and what cannot change a result.
_COMMON = ("sdbuild.errors", "sdbuild.stages", "sdbuild.tensors")


@dataclass(frozen=True)
class StageSource:
    """A stage's version and the digest of its normalised source."""

    version: int
    digest: str


def stage_source(name: str) -> StageSource:
    """Look at a stage as it is now."""
    stage = stages.load_stage(name)
    digest = hashlib.sha256()
    for path in sorted({path for module in (f"sdbuild.stages.{name}", *stage.modules) for path in _files(module)}):
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\n{normalised(path.read_text())}\n".encode())
    return StageSource(stage.version, digest.hexdigest())


def normalised(source: str) -> str:
    """Python source without comments, layout and docstrings, the same under every supported Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return json.dumps(_plain(tree), ensure_ascii=True)


def undeclared(name: str) -> list[str]:
    """Modules of ours that a stage's own module imports and its declaration does not name."""
    declared = (*_COMMON, *stages.load_stage(name).modules)
    (path,) = _files(f"sdbuild.stages.{name}")
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    ours = sorted(module for module in imported if module.startswith("sdbuild."))
    return [m for m in ours if m != f"sdbuild.stages.{name}" and not any(f"{m}.".startswith(f"{d}.") for d in declared)]


def changed(record: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """For each stage whose source or version differs from the record, what to decide."""
    for name in stages.STAGE_NAMES:
        now, before = stage_source(name), record.get(name)
        if before is None:
            yield f"{name}: new"
        elif now.digest != before["digest"] and now.version == before["version"]:
            yield f"{name}: its source has changed, its version {now.version} has not"
        elif now != StageSource(**before):
            yield f"{name}: version {before['version']} → {now.version}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m sdbuild.plan.stage_digests", description="Decide on changed stages."
    )
    parser.add_argument("--accept", action="store_true", help="record all stages as they are")
    parser.add_argument("--raise", dest="raised", metavar="STAGE", action="append", default=[], help="raise a version")
    options = parser.parse_args(arguments)
    for name in options.raised:
        _raise_version(name)
    found = list(changed(json.loads(RECORD.read_text()) if RECORD.exists() else {}))
    print("\n".join(found) or "all stages are as recorded")
    if options.accept or options.raised:
        kept = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        names = stages.STAGE_NAMES if options.accept else options.raised
        record = kept | {name: vars(stage_source(name)) for name in names}
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        return 0
    return 1 if found else 0


def _raise_version(name: str) -> None:
    if name not in stages.STAGE_NAMES:
        raise PlanError(f"--raise {name}: no such stage; there are {', '.join(stages.STAGE_NAMES)}")
    (path,) = _files(f"sdbuild.stages.{name}")
    version = stages.load_stage(name).version + 1
    path.write_text(_VERSION.sub(str(version), path.read_text(), count=1))
    sys.modules.pop(f"sdbuild.stages.{name}")


def _files(module: str) -> list[Path]:
    """The source files of a module, or of a package with all that is in it."""
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    if path.with_suffix(".py").is_file():
        return [path.with_suffix(".py")]
    raise PlanError(f"{module} is declared by a stage and does not exist")


def _plain(node: Any) -> Any:
    """A syntax tree as lists; fields that are empty are left out, because each Python adds some."""
    if isinstance(node, ast.AST):
        fields = {name: _plain(value) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind")}
        return [type(node).__name__, {name: value for name, value in fields.items() if value not in (None, [])}]
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return node if node is None or isinstance(node, str | bool) else repr(node)


if __name__ == "__main__":
    sys.exit(main())
