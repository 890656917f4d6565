"""The compile stage: packages become compiled models, by Apple's compiler on a Mac.

Inputs: ``package``, an artifact with one package or two. Parameters: ``platform``, `ios` or `macos`. The result holds
``<Name>.mlmodelc`` for each package, and ``footprints.json``: what each needs in memory, which only packages tell.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from sdbuild.errors import SdbuildError
from sdbuild.interface.swift.files import COMPILED, PACKAGE
from sdbuild.stages import Stage
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """What models are compiled for.

    Attributes:
        platform: `ios` or `macos`, as Apple's compiler calls it.
    """

    platform: Literal["ios", "macos"]


STAGE = Stage(
    name="compile",
    version=2,
    parameters=Parameters,
    title="{} compiled by Apple's compiler",
    group="compile packages (on a Mac)",
    reads="a package",
    result="a compiled model, on a Mac",
    follows=("convert", "quantize", "chunk", "verify"),
)

_TOOL = ("xcrun", "coremlcompiler")
_LONGEST_OUTPUT = 4000


class CompileError(SdbuildError):
    """Apple's Core ML compiler is missing or failed."""


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Compile each package.

    Raises:
        CompileError: with the compiler's own words.
    """
    from sdbuild.stages.footprints import write_footprints

    packages = sorted(inputs["package"].glob(f"*{PACKAGE}"))
    for index, package in enumerate(packages):
        progress(index / len(packages), f"compiling {package.stem}")
        compile_package(package, out, params.platform)
    write_footprints(packages, out)
    progress(1.0, ", ".join(package.stem for package in packages))


def compile_package(package: Path, out: Path, platform: str) -> Path:
    """Compile one package to `out/<Name>.mlmodelc` and return that path.

    Raises:
        CompileError: with the compiler's own words.
    """
    # The compiler resolves no links within a package, so it is given the real files.
    result = _call("compile", str(package.resolve()), str(out), "--platform", platform)
    compiled = out / f"{package.stem}{COMPILED}"
    if result.returncode != 0:
        raise CompileError(
            f"{package.name}: Apple's compiler failed with exit status {result.returncode}:\n{_words(result)}"
        )
    if not (compiled / "coremldata.bin").is_file():
        raise CompileError(
            f"{package.name}: Apple's compiler reported success, but wrote no {compiled.name}. "
            f"It said:\n{_words(result)}"
        )
    return compiled


def compiler_build() -> str:
    """The compiler's version and build, part of the action key of everything that it compiles.

    Raises:
        CompileError: there is no such compiler, with what to install.
    """
    result = _call("version")
    if result.returncode != 0 or not result.stdout.strip():
        raise CompileError(f"Apple's compiler does not tell its version:\n{_words(result)}")
    return " ".join(result.stdout.split())


def _call(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        result = subprocess.run([*_TOOL, *arguments], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise CompileError("xcrun is not installed: compiled models need a Mac with Xcode") from error
    # xcrun's own status for a tool that the active developer directory lacks: the Command Line Tools have no compiler.
    if result.returncode != 0 and "unable to find utility" in result.stderr:
        raise CompileError(
            "coremlcompiler is not installed: it comes with Xcode, not with the Command Line Tools. Install Xcode, "
            f"then run `sudo xcode-select --switch /Applications/Xcode.app`. xcrun said:\n{_words(result)}"
        )
    return result


def _words(result: subprocess.CompletedProcess[str]) -> str:
    """The end of what a command printed, where compilers put what matters."""
    said = "\n".join(part.strip() for part in (result.stdout, result.stderr) if part.strip())
    return said[-_LONGEST_OUTPUT:] or "(nothing)"
