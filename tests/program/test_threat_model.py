"""Each line of the threat model names a test that is there."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_line_has_its_test() -> None:
    lines = (CHECKOUT / "docs/explanation/threat-model.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| could", "| ---"))]
    assert len(rows) > 20
    for row in rows:
        found = NAMED.findall(row)
        assert found, row
        for file, test in found:
            text = (CHECKOUT / file).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in text, f"{file} has no {test}"
