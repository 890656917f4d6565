"""The compile stage with a stand-in for `xcrun` that behaves like Apple's, failures included."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from sdbuild.bundle.features import read_interface
from sdbuild.stages import compile as stage
from tests.bundle.bundles import SD, write_package

# `coremlcompiler compile` makes the output directory, names the result after the package and prints its path; without
# Xcode, xcrun ends with status 72.
STAND_IN = """#!{python}
import os, sys, pathlib
arguments = sys.argv[1:]
mode = os.environ.get("STAND_IN", "")
if mode == "command-line-tools":
    sys.stderr.write('xcrun: error: unable to find utility "coremlcompiler", not a developer tool or in PATH')
    sys.exit(72)
assert arguments[0] == "coremlcompiler", arguments
if arguments[1] == "version":
    print("3404.23.1" if mode != "mute" else "")
    sys.exit(0)
verb, package, out, option, platform = arguments[1:]
assert (verb, option) == ("compile", "--platform") and platform in ("ios", "macos"), arguments
package, out = pathlib.Path(package), pathlib.Path(out)
assert (package / "Manifest.json").is_file(), package
if mode == "fails":
    print("compiling")
    sys.stderr.write("coremlcompiler: error: Failed to parse ML Program: Unknown opset 'CoreML9'.\\n")
    sys.exit(1)
if mode == "writes-nothing":
    print("done")
    sys.exit(0)
sys.path[:0] = {path!r}
from tests.bundle.bundles import SD, write_compiled
write_compiled(out / (package.stem + ".mlmodelc"), SD["Unet"])
print(out / (package.stem + ".mlmodelc") / "coremldata.bin")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = tmp_path / "bin" / "xcrun"
    tool.parent.mkdir()
    tool.write_text(STAND_IN.format(python=sys.executable, path=[str(Path(__file__).parents[2])]))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tool.parent))
    write_package(tmp_path / "in" / "Unet.mlpackage", SD["Unet"])
    (tmp_path / "in" / "modules.json").write_text("{}")
    (tmp_path / "out").mkdir()
    return tmp_path / "in"


def compile_all(package: Path) -> Path:
    out = package.parent / "out"
    stage.run({"package": package}, {"platform": "ios"}, out, lambda fraction, message: None)
    return out


def test_each_package_becomes_a_compiled_model(package: Path) -> None:
    write_package(package / "UnetChunk2.mlpackage", SD["Unet"])
    out = compile_all(package)
    assert sorted(path.name for path in out.iterdir()) == ["Unet.mlmodelc", "UnetChunk2.mlmodelc", "footprints.json"]
    assert read_interface(out / "Unet.mlmodelc").inputs[0].name == "sample"


def test_the_compilers_build_is_told(package: Path) -> None:
    assert stage.compiler_build() == "3404.23.1"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (
            "command-line-tools",
            r"comes with Xcode, not with the Command Line Tools.*xcode-select.*not a developer tool",
        ),
        ("fails", r"Unet.mlpackage: .*exit status 1:\ncompiling\ncoremlcompiler: error: Failed to parse ML Program"),
        ("writes-nothing", r"reported success, but wrote no Unet.mlmodelc. It said:\ndone"),
    ],
)
def test_failures_are_reported_with_the_compilers_words(
    package: Path, monkeypatch: pytest.MonkeyPatch, mode: str, message: str
) -> None:
    monkeypatch.setenv("STAND_IN", mode)
    with pytest.raises(stage.CompileError, match=f"(?s){message}"):
        compile_all(package)


def test_a_mute_compiler_has_no_build(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "mute")
    with pytest.raises(stage.CompileError, match=r"does not tell its version:\n\(nothing\)"):
        stage.compiler_build()


def test_without_xcrun(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(stage.CompileError, match="xcrun is not installed"):
        compile_all(package)
    with pytest.raises(stage.CompileError, match="xcrun is not installed"):
        stage.compiler_build()


@pytest.mark.mac
@pytest.mark.skipif(sys.platform != "darwin", reason="Apple's compiler exists on macOS only")
def test_apples_compiler_tells_its_build() -> None:
    assert stage.compiler_build()
