"""The bundle linter: whether the Swift package can load and run what lies in a Resources directory.

The contract is what the Swift sources of apple/ml-stable-diffusion read and feed (StableDiffusionPipeline+Resources,
Unet, ControlNet, Encoder, Decoder, SafetyChecker, BPETokenizer+Reading and their siblings for SDXL and SD 3). Packages
and compiled models are checked alike, on any machine, without Core ML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle.document import read_document
from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.layout import DOCUMENT, RESOURCES
from sdbuild.bundle.linter.agreement import lint_conditioners, lint_presence, lint_sizes
from sdbuild.bundle.linter.chunks import joined, lint_feed
from sdbuild.bundle.linter.contents import Contents, scan
from sdbuild.bundle.linter.document import lint_document
from sdbuild.bundle.linter.models import Sizes, lint_model
from sdbuild.bundle.linter.t5_tokenizer import lint_t5_tokenizer
from sdbuild.bundle.linter.tokenizer import lint_tokenizer
from sdbuild.bundle.linter.violation import RULES, Violation
from sdbuild.interface.swift.rows import CHUNKED, ROWS

# The preflight rule about models that the family's pipeline cannot do without; a recipe that overrules it means to add
# them by other means, and its bundle says so.
_REQUIRED = "component-required-by-family"

__all__ = ["RULES", "Violation", "check", "lint", "lint_bundle"]


def lint(resources: Path, document: Mapping[str, Any] | None = None) -> list[Violation]:
    """Check a Resources directory, and what its `bundle.json` says of it.

    Args:
        resources: the directory that the Swift package is given.
        document: the content of `bundle.json`; None checks the directory alone.

    Returns:
        Every violation, in a fixed order; none when all is well.
    """
    if not resources.is_dir():
        return [Violation("missing-model", resources.name, "no such directory")]
    contents, violations = scan(resources, frozenset((document or {}).get("extensions", ())))
    sizes = Sizes()
    violations += _lint_models(contents, sizes)
    if _REQUIRED not in (document or {}).get("allowed_rules", ()):
        violations += lint_presence(contents)
    violations += lint_conditioners(contents)
    violations += lint_sizes(contents, sizes)
    if contents.has("TextEncoder") or contents.has("TextEncoder2"):
        violations += lint_tokenizer(resources)
    if contents.kind == "sd3":
        violations += lint_t5_tokenizer(resources)
    if document is not None:
        violations += lint_document(document, resources, contents, sizes)
    return violations


def lint_bundle(bundle: Path) -> list[Violation]:
    """Check a bundle: its Resources directory and its `bundle.json`."""
    try:
        document = read_document(bundle)
    except BundleError as error:
        return [Violation("document", DOCUMENT, str(error)), *lint(bundle / RESOURCES)]
    return lint(bundle / RESOURCES, document)


def check(bundle: Path) -> None:
    """Lint a bundle that was just built.

    Raises:
        BundleError: names every violation.
    """
    violations = lint_bundle(bundle)
    if violations:
        lines = "\n".join(f"  {violation}" for violation in violations)
        raise BundleError(f"the bundle would not work with the Swift package:\n{lines}")


def _lint_models(contents: Contents, sizes: Sizes) -> Iterator[Violation]:
    """Each model, in the contract's order, so that sizes are always compared with the same place."""
    names = [name for name in ROWS[contents.kind] if name in contents.interfaces or name in CHUNKED]
    names += sorted(name for name in {*contents.interfaces, *CHUNKED} if name not in ROWS[contents.kind])
    for name in names:
        row = contents.row(name)
        if row is None:
            continue
        if pair := contents.pair(name) if name in CHUNKED else None:
            yield from lint_feed(name, *pair, row)
            yield from lint_model(f"{name}Chunk2", joined(*pair, row), row, sizes)
        elif name in contents.interfaces:
            yield from lint_model(name, contents.interfaces[name], row, sizes)
