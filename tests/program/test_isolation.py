"""What lies in the working folder is never imported, whatever its name and whichever command runs there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild import isolation

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = (
    *("yaml", "torch", "queue", "sitecustomize", "usercustomize", "numpy", "json", "typing", "pydantic", "doit"),
    *("sdbuild", "rich", "psutil", "diffusers", "coremltools", "start", "worker", "errors", "dodo", "multiprocessing"),
)
"""Of the standard library, of dependencies, of ours, and what Python imports by itself if it is there."""
TRAP = """
import os
with open(os.environ["TRAP"], "a") as file:
    file.write(__name__ + "\\n")
raise SystemExit(99)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder full of traps, half of them packages."""
    folder = tmp_path / "work"
    folder.mkdir()
    for number, name in enumerate(MODULES):
        place = folder / (f"{name}.py" if number % 2 else f"{name}/__init__.py")
        place.parent.mkdir(exist_ok=True)
        place.write_text(TRAP)
    (folder / "recipes").mkdir()
    (folder / "recipes" / "mine.yaml").write_text("name: mine\nextends: tiny-sd\ntargets: [iphone-15-pro]\n")
    return folder


def run(folder: Path, *command: str, **environment: str) -> tuple[int, str]:
    """Run a command line in the folder; fails if a trap was imported."""
    trap = folder.parent / "sprung"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    values = {"SDBUILD_CACHE": str(folder.parent / "cache"), "TRAP": str(trap)} | environment
    ran = subprocess.run(command, cwd=folder, env=inherited | values, capture_output=True, text=True, check=False)
    assert not trap.exists(), f"{command} imported {trap.read_text()}\n{ran.stderr}"
    return ran.returncode, ran.stdout + ran.stderr


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


COMMANDS: list[tuple[tuple[str, ...], int]] = [
    (("check", "recipe=mine"), 0),
    (("recipes",), 0),
    (("targets",), 0),
    (("plan", "recipe=mine"), 0),
    (("list", "recipe=mine"), 0),
    (("info", "recipe=mine", "source:index"), 0),
    (("recipe=mine", "source:index", "convert:text_encoder"), 0),
    (("forget", "recipe=mine", "source:index"), 0),
    (("ignore", "recipe=mine", "source:index"), 0),
    (("clean", "recipe=mine"), 0),
    (("lint", "recipe=mine"), 2),
    (("lock", "recipe=mine"), 0),
    (("help",), 0),
]


def test_no_command_imports_from_the_working_folder(folder: Path) -> None:
    for words, status in COMMANDS:
        assert run(folder, program("sdbuild"), *words)[0] == status, words


@pytest.mark.parametrize("words", [("generate", "prompt=x"), ("diagnose", "component=unet")])
def test_nor_do_the_processes_that_a_command_starts(folder: Path, words: tuple[str, ...]) -> None:
    """The build that a command needs is a process of its own; this one gets far enough to have imported all it uses."""
    status, said = run(folder, program("sdbuild"), *words, "recipe=mine", SDBUILD_MEMORY_GB="nonsense")
    assert status == 1
    assert "SDBUILD_MEMORY_GB='nonsense' is not a number" in said
    assert "could not be built" in said


def test_an_empty_entry_in_pythonpath_leads_no_further_than_to_our_first_line(folder: Path) -> None:
    """`PYTHONPATH=$PYTHONPATH:…` with nothing before it names the working folder. Python's own start is the user's."""
    for name in ("sitecustomize", "usercustomize", "typing", "sdbuild"):
        for place in (folder / name, folder / f"{name}.py"):
            if place.exists():
                place.rename(folder / f"not-{place.name}")
    for words in (("plan", "recipe=mine"), ("recipe=mine", "source:index")):
        assert run(folder, program("sdbuild"), *words, PYTHONPATH=":")[0] == 0


def test_doit_imports_nothing_from_there_either(folder: Path) -> None:
    (folder / "sdbuild" / "__init__.py").unlink()
    (folder / "sdbuild").rmdir()
    for name in ("sdbuild", "targets"):
        (folder / name).symlink_to(CHECKOUT / name)
    (folder / "pyproject.toml").write_bytes((CHECKOUT / "pyproject.toml").read_bytes())
    for words in (("check", "recipe=mine"), ("plan", "recipe=mine"), ("list", "recipe=mine")):
        status, said = run(folder, program("doit"), *words)
        assert status == 0, said


def test_spawned_children_of_a_process_of_ours(folder: Path) -> None:
    """As `python -m sdbuild.shapes.evaluate` does; the path is a checkout's, without any installation."""
    script = folder.parent / "pool.py"
    script.write_text(
        "import sys\n"
        f"sys.path.append({str(CHECKOUT)!r})\n"
        "from sdbuild.isolation import leave_working_folder\n"
        "if __name__ == '__main__':\n"
        "    leave_working_folder()\n"
        "    from concurrent.futures import ProcessPoolExecutor\n"
        "    from multiprocessing import get_context\n"
        "    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:\n"
        "        print(pool.submit(len, 'four').result())\n"
    )
    assert run(folder, sys.executable, str(script)) == (0, "4\n")


def test_the_path_holds_the_working_folder_last_and_only_for_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/somewhere", os.getcwd(), "/else"])  # noqa: PTH109
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setattr(sys, "path", ["", "/somewhere", str(CHECKOUT), "/else"])
    assert isolation.import_path() == ["/somewhere", "/else", str(CHECKOUT)]
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", ["", "/somewhere", str(CHECKOUT), "/else"])
    assert isolation.import_path() == ["/somewhere", str(CHECKOUT), "/else"]
