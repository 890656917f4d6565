"""The rooms: in the order that `pyproject.toml` lists, and all of them described."""

import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def test_imports_run_downwards() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    ran = subprocess.run([*command, "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_room_is_described() -> None:
    (contract,) = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert contract["exhaustive"], "a room that is not listed must fail"
    listed = {name for line in contract["layers"] for name in line.replace("|", ":").replace(" ", "").split(":")}
    rooms = {name for name in listed if (CHECKOUT / "sdbuild" / name).is_dir()}
    text = (CHECKOUT / "docs/explanation/architecture.md").read_text()
    assert {room for room in rooms if f"| `{room}/` |" not in text} == set()
