"""What people see."""

import io

import pytest

from sdbuild.execute import LiveReporter, PlainReporter, Reporter, reporter_for
from sdbuild.execute import report as report_module
from sdbuild.store import ActionResult

_RESULT = ActionResult("0" * 64, 12.34, 3_000_000_000, 1_400_000_000, "logs/x.log", "2025-01-01T00:00:00+00:00")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _tell(reporter: Reporter) -> None:
    reporter.waiting("convert:unet", "waits for memory")
    reporter.started("convert:unet")
    reporter.started("convert:vae_decoder")
    for step in range(50):
        reporter.progress("convert:unet", step / 50, f"step {step}", 900_000_000)
    reporter.finished("convert:unet", _RESULT)
    reporter.failed("convert:vae_decoder", RuntimeError("no"))


def test_plain_lines_are_few() -> None:
    stream = io.StringIO()
    _tell(reporter_for(stream))
    assert stream.getvalue().splitlines() == [
        "convert:unet: waits for memory",
        "convert:unet: started",
        "convert:vae_decoder: started",
        "convert:unet: 12.3 s, 1.4 GB",
        "convert:vae_decoder: failed",
    ]


def test_plain_progress_has_share_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "_SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    reporter = PlainReporter(stream)
    reporter.progress("convert:unet", 0.5, "lowers the graph", 900_000_000)
    reporter.progress("convert:unet", None, "", 0)
    assert stream.getvalue().splitlines()[0] == "convert:unet: 50% lowers the graph (0 s, 0.9 GB)"


def test_a_terminal_shows_a_table_and_then_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = _Terminal()
    reporter = reporter_for(stream)
    assert isinstance(reporter, LiveReporter)
    _tell(reporter)
    text = stream.getvalue()
    assert "convert:unet" in text
    assert "12.3 s, 1.4 GB" in text
    assert reporter._live is None
