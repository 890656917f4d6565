"""The table of operations says what the runtime has, and every operation in it is tested."""

from __future__ import annotations

from pathlib import Path

from sdbuild.coreml.runtime import coverage
from sdbuild.coreml.runtime.kernels import KERNELS
from tests.coreml.test_runtime_operations import CASES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "operations.md"


def test_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == coverage.render(), (
        "run python -m sdbuild.coreml.runtime.coverage docs/reference/operations.md"
    )


def test_every_kernel_has_a_case() -> None:
    compressed = {name for name in KERNELS if name.startswith("constexpr_")}
    assert set(KERNELS) - compressed - {case.operation for case in CASES} == set()
