"""The stat cache forgets and doubts, but never lies."""

import os
from pathlib import Path

import pytest

from sdbuild.store import stats as stats_module
from sdbuild.store.layout import Layout
from sdbuild.store.stats import StatCache, hash_file


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "cache")
    layout.prepare()
    return layout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def test_each_change_of_status_is_seen(layout: Layout, file: Path) -> None:
    cache = StatCache(layout)
    digest, status = cache.digest(file)
    assert digest == hash_file(file)
    assert StatCache(layout).known(status) == digest
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # only the change time
    assert cache.known(file.stat()) is None
    cache.digest(file)
    file.write_bytes(b"CONTENT")  # an instant later, same size
    assert cache.known(file.stat()) is None
    cache.digest(file)
    replacement = file.with_name("replacement")
    replacement.write_bytes(b"CONTENT")
    os.utime(replacement, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)
    assert cache.known(file.stat()) is None


def test_every_write_right_after_a_reading_is_seen(layout: Layout, file: Path) -> None:
    cache = StatCache(layout)
    for number in range(40):
        file.write_bytes(f"{number:07}".encode())
        before = cache.digest(file)[0]
        file.write_bytes(f"{number:06}x".encode())
        assert cache.digest(file)[0] != before


def test_processes_see_each_others_records(layout: Layout, file: Path) -> None:
    first, second = StatCache(layout), StatCache(layout)
    digest, status = first.digest(file)
    assert second.known(status) == digest


def test_damaged_lines_are_passed_over(layout: Layout, file: Path) -> None:
    cache = StatCache(layout)
    digest, status = cache.digest(file)
    good = layout.stats.read_bytes()
    other = good.replace(digest.encode(), b"0" * 64)
    layout.stats.write_bytes(b"\xff\xfe\n" + good + other + b"zz 1 2\n\n" + good[: len(good) // 2])
    assert StatCache(layout).known(status) == digest
    layout.stats.write_bytes(other)
    assert StatCache(layout).known(status) is None


def test_the_log_is_kept_short(layout: Layout, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_module, "_COMPACT_BYTES", 3000)
    monkeypatch.setattr(stats_module, "_KEPT_RECORDS", 5)
    cache, other = StatCache(layout), StatCache(layout)
    other.digest(file)
    for number in range(60):
        path = tmp_path / f"{number}"
        path.write_bytes(b"x")
        cache.digest(path)
    assert layout.stats.stat().st_size <= 3200
    assert other.known(path.stat()) is not None
    assert list(layout.scratch.iterdir()) == []


def test_whole_second_times_are_not_trusted_while_fresh(layout: Layout, file: Path) -> None:
    cache = StatCache(layout)
    values = list(file.stat())
    fresh = os.stat_result([*values[:10], *map(float, values[7:10]), *(int(v) * 10**9 for v in values[7:10])])
    cache.remember(fresh, "0" * 64)
    assert cache.known(fresh) is None
