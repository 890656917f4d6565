"""The digest of each stage's source, so that no change of it goes by without a decision.

A stage's version stands in every action key, and only a person knows whether a change of the source changes the result.
`tests/plan/stage_digests.json` holds the digest for which that was last decided; a test compares. After a change:

    python -m sdbuild.plan.stage_digests                    # which stages have changed
    python -m sdbuild.plan.stage_digests --raise convert    # the result is another: raise the version
    python -m sdbuild.plan.stage_digests --accept           # the results of all others are the same

A stage's source is its own module's and that of every module of ours that it leads to, however many imports away
(`sdbuild.plan.import_closure`). Comments, layout and docstrings are no part of a digest.
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
from sdbuild.plan.import_closure import ImportClosure

_PACKAGE = Path(sdbuild.__file__).parent
RECORD = _PACKAGE.parent / "tests" / "plan" / "stage_digests.json"
_VERSION = re.compile(r"(?<=version=)\d+")

_CANNOT_CHANGE_A_RESULT = ("sdbuild", "sdbuild.documents", "sdbuild.errors", "sdbuild.paths", "sdbuild.stages")
"""The version of the whole, what is refused, what errors are called, and what a declaration looks like."""


@dataclass(frozen=True)
class StageSource:
    """A stage's version and the digest of its normalised source."""

    version: int
    digest: str


def stage_sources() -> dict[str, StageSource]:
    """Look at every stage as it is now."""
    closure = ImportClosure(_PACKAGE, passed_over=_CANNOT_CHANGE_A_RESULT)
    digests: dict[Path, str] = {}
    found = {}
    for name in stages.stage_names():
        files = closure.files(f"sdbuild.stages.{name}")
        digests |= {path: _file_digest(path) for path in files if path not in digests}
        lines = "".join(f"{path.relative_to(_PACKAGE).as_posix()} {digests[path]}\n" for path in files)
        found[name] = StageSource(stages.load_stage(name).version, hashlib.sha256(lines.encode()).hexdigest())
    return found


def _file_digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".py":
        content = normalised(content.decode("utf-8")).encode()
    return hashlib.sha256(content).hexdigest()


def normalised(source: str) -> str:
    """Python source without comments, layout and docstrings, the same under every supported Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return json.dumps(_plain(tree), ensure_ascii=True)


def changed(record: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """For each stage whose source or version differs from the record, what to decide."""
    for name, now in stage_sources().items():
        before = record.get(name)
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
        names = stages.stage_names() if options.accept else options.raised
        now = stage_sources()
        record = kept | {name: vars(now[name]) for name in names}
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        return 0
    return 1 if found else 0


def _raise_version(name: str) -> None:
    if name not in stages.stage_names():
        raise PlanError(f"--raise {name}: no such stage; there are {', '.join(stages.stage_names())}")
    path = _PACKAGE / "stages" / f"{name}.py"
    version = stages.load_stage(name).version + 1
    path.write_text(_VERSION.sub(str(version), path.read_text(), count=1))
    sys.modules.pop(f"sdbuild.stages.{name}")


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
