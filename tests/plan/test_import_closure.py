"""What a module's source consists of, on packages of a few lines."""

from pathlib import Path

import pytest

from sdbuild.plan.import_closure import ImportClosure


def closure(folder: Path, files: dict[str, str], *passed_over: str) -> ImportClosure:
    root = folder / "house"
    for name, text in {"__init__.py": "", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return ImportClosure(root, passed_over)


@pytest.mark.parametrize(
    "text",
    [
        "import house.near",
        "from house import near",
        "from house.near import anything",
        "from . import near",
        "from .near import anything",
        "def f():\n    from house import near",
        "class C:\n    async def f(self):\n        import house.near as n",
        "later = lambda: __import__('house.near')",
        "ENTRY = 'house.near:run'",
        "TABLE = {'a': ('house.near', 1)}",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import house.near",
        "try:\n    import house.near\nexcept ImportError:\n    pass",
    ],
)
def test_every_way_to_lead_to_a_module_counts_however_far(tmp_path: Path, text: str) -> None:
    found = closure(tmp_path, {"start.py": text, "near.py": "import house.far", "far.py": "", "other.py": ""})
    assert found.modules("house.start") == ["house", "house.far", "house.near", "house.start"]


@pytest.mark.parametrize(
    "text",
    [
        "if TYPE_CHECKING:\n    import house.near",
        "if typing.TYPE_CHECKING:\n    from house import near",
        "import os.path, other.near",
        "'house.near is a module'",
        "'house.nowhere'",
    ],
)
def test_what_leads_nowhere(tmp_path: Path, text: str) -> None:
    assert closure(tmp_path, {"start.py": text, "near.py": ""}).imports("house.start") in ([], ["house"])


def test_a_package_runs_before_its_modules_and_its_functions_only_when_it_is_meant(tmp_path: Path) -> None:
    files = {
        "room/__init__.py": "import house.always\ndef __getattr__(name):\n    import house.rarely",
        "room/one.py": "",
        "always.py": "",
        "rarely.py": "",
        "of_a_module.py": "import house.room.one",
        "of_the_room.py": "from house.room import Thing",
    }
    found = closure(tmp_path, files)
    assert found.modules("house.of_a_module") == [
        "house",
        "house.always",
        "house.of_a_module",
        "house.room",
        "house.room.one",
    ]
    assert {"house.always", "house.rarely"} <= set(found.modules("house.of_the_room"))


def test_data_belong_to_the_package_that_they_lie_in(tmp_path: Path) -> None:
    files = {
        "start.py": "import house.room",
        "room/__init__.py": "",
        "room/data/table.json": "{}",
        "room/within/__init__.py": "",
        "room/within/other.json": "{}",
    }
    found = [path.relative_to(tmp_path / "house").as_posix() for path in closure(tmp_path, files).files("house.start")]
    assert found == ["__init__.py", "room/__init__.py", "room/data/table.json", "start.py"]


def test_what_is_passed_over_is_not_followed(tmp_path: Path) -> None:
    files = {"start.py": "import house.near", "near.py": "import house.far", "far.py": ""}
    assert closure(tmp_path, files, "house.near").modules("house.start") == ["house", "house.start"]


def test_circles_end(tmp_path: Path) -> None:
    found = closure(tmp_path, {"start.py": "import house.near", "near.py": "import house.start"})
    assert found.modules("house.start") == ["house", "house.near", "house.start"]


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no module house\.nowhere"):
        closure(tmp_path, {}).files("house.nowhere")


def test_a_registry_can_name_all_modules_of_a_package(tmp_path: Path) -> None:
    files = {"start.py": "ROOM = 'house.room.*'", "room/__init__.py": "", "room/one.py": "", "room/in/__init__.py": ""}
    found = closure(tmp_path, files | {"room/in/two.py": "import house.far", "far.py": "", "other.py": ""})
    assert [name for name in found.modules("house.start") if name != "house"] == [
        *("house.far", "house.room", "house.room.in", "house.room.in.two", "house.room.one", "house.start"),
    ]
