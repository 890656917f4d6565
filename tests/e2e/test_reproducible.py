"""The same bundle from another cache, in other folders, by two builds at once, where all else differs too."""

import os
import socket
from pathlib import Path

import pytest

from tests.e2e.program import PHONE, Workspace, content

OTHERWISE = {
    "TZ": "Asia/Kathmandu",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "C",
    "USER": "somebody",
    "LOGNAME": "somebody",
    "COLUMNS": "40",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SOURCE_DATE_EPOCH": "0",
    # Another processor, as far as torch, numpy and OpenBLAS can be told to be one.
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
    "OPENBLAS_CORETYPE": "Prescott",
}
"""What one user's machine has and another's has not; none of it may reach a bundle."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Workspace]:
    """Two builds of one recipe that start at the same time on an empty cache; the places of their bundles."""
    root = tmp_path_factory.mktemp("pair")
    one = Workspace(root / "one", root / "cache")
    two = Workspace(root / "somewhere else" / "two", root / "cache")
    processes = []
    mask = os.umask(0o077)
    for workspace, words, seed in ((one, ("-n", "2"), "1"), (two, (f"out={root / 'put here'}",), "4242")):
        workspace.recipe(PHONE)
        processes.append(
            workspace.start(
                "recipe=phone", "verify=off", *words, PYTHONHASHSEED=seed, HOME=str(root / seed), **OTHERWISE
            )
        )
    os.umask(mask)
    for process in processes:
        _, err = process.communicate()
        assert process.returncode == 0, err
    return one.bundle(), root / "put here/phone/iphone-15-pro", one


def test_two_builds_at_once_succeed_and_share_the_work(pair: tuple[Path, Path, Workspace]) -> None:
    first, second, workspace = pair
    assert content(first) == content(second)
    actions = sorted(workspace.logs().values())
    assert actions == sorted(set(actions)), "every action was executed once"


def test_another_cache_in_another_folder_gives_the_same_bytes(
    built: Workspace, pair: tuple[Path, Path, Workspace]
) -> None:
    expected = content(built.bundle())
    assert "bundle.json" in expected
    assert content(pair[0]) == expected
    assert content(pair[1]) == expected


def test_what_names_the_host_stands_outside_of_the_bundle(built: Workspace) -> None:
    assert built.bundle().with_name("iphone-15-pro.build-host.json").is_file()
    assert not list(built.bundle().rglob("*build-host*"))
    names = [socket.gethostname(), str(built.folder), str(built.cache), str(Path.home()), os.sep + "tmp" + os.sep]
    for path in built.bundle().rglob("*"):
        if path.suffix in (".json", ".mlmodel"):
            text = path.read_bytes()
            assert not [name for name in names if len(name) > 6 and name.encode() in text], path
