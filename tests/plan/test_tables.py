"""Sizes, durations and plain tables."""

import pytest

from sdbuild.console.tables import plain_lines, shown_bytes, shown_seconds


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (645_000_000, "645 MB"),
        (999_600_000, "1.00 GB"),
        (3.44e9, "3.44 GB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert shown_bytes(int(count)) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "60 s"), (125, "2 min 05 s")])
def test_durations(seconds: float, shown: str) -> None:
    assert shown_seconds(seconds) == shown


def test_a_plain_table_is_aligned_and_has_one_line_a_row() -> None:
    lines = plain_lines(("name", "why"), [("a", "x\ny"), ("longer", "")])
    assert lines == ["name    why", "a       x; y", "longer"]
