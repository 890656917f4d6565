"""However the program ends, it ends with words and a documented status, never with a bare traceback."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdbuild.console import endings
from sdbuild.errors import SdbuildError

DOCUMENTED = Path(__file__).resolve().parents[2] / "docs/reference/exit-statuses.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work/recipes").mkdir(parents=True)
    (tmp_path / "work/recipes/mine.yaml").write_text("name: mine\nextends: tiny-sd\ntargets: [iphone-15-pro]\n")
    return tmp_path / "work"


def sdbuild(folder: Path, *words: str, redirect: str = "") -> tuple[int, str, str]:
    """Run a command line through a shell."""
    script = f'"$0" "$@" {redirect}'
    program = str(Path(sys.executable).with_name("sdbuild"))
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, program, *words],
        cwd=folder,
        env=os.environ | {"SDBUILD_CACHE": str(folder.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


LONG = "x" * 300
MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    (("check", f"recipe={LONG}"), 1, "File name too long; give it a shorter name"),
    (("plan", f"recipe=/{LONG}.yaml"), 1, "File name too long; give it a shorter name"),
    (("recipe=mine", "source:index", f"out={LONG}"), 1, "File name too long; give it a shorter name"),
    (("check", "recipe=mine", "source=~nouser/x"), 2, "there is no user of that name"),
    (("plan", "recipe=~nouser/x.yaml"), 2, "there is no user of that name"),
    (("plan", "recipe=mine", "out=~nouser/x"), 2, "there is no user of that name"),
    (("run", "--backend", "json", "recipe=mine", "source:index"), 2, "--backend: what is built is known by"),
    (("run", "-o", "missing/x", "recipe=mine", "source:index"), 1, "missing/x: No such file or directory"),
    (("-n", "-1", "recipe=mine"), 2, "-n -1: a number of actions from 0"),
    (("-n", "x", "recipe=mine"), 2, "num_process"),
    (("recipe=mine", "recipe=tiny-sd"), 2, "'recipe=' is given twice, as 'mine' and 'tiny-sd'"),
    (("list", "recipe=mine", "--template", "{nope}"), 2, "--template: 'nope' is nothing that a line has"),
    (("-f", "nosuch.py"), 2, "option -f not recognized"),
    (("info", "recipe=mine"), 2, "must select *one* task"),
    (("forget", "nosuch"), 2, "not a task"),
    (("generate", "recipe=mine", "prompt=x", "steps=100000000"), 2, "steps=100000000: at most"),
    (("generate", "recipe=mine", "prompt=x", "image_count=100001"), 2, "image_count=100001: at most"),
    (("generate", "recipe=mine", "prompt=x", f"steps={'9' * 5000}"), 2, "steps"),
]


@pytest.mark.parametrize(("words", "status", "said"), MISTAKES, ids=[" ".join(m[0])[:40] for m in MISTAKES])
def test_odd_command_lines(folder: Path, words: tuple[str, ...], status: int, said: str) -> None:
    found, _, err = sdbuild(folder, *words)
    assert (found, said in err) == (status, True), err
    assert err.count("\n") < 12


def test_a_reader_that_goes(folder: Path) -> None:
    assert sdbuild(folder, "targets", redirect="| head -1")[0] in (0, 141)
    assert sdbuild(folder, "targets", redirect="| true")[0] in (0, 141)
    assert sdbuild(folder, "recipe=mine", "source:index", redirect="| true")[0] in (0, 141)


@pytest.mark.parametrize("redirect", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [("targets",), ("recipe=mine", "source:index"), ("check", "recipe=mine")])
def test_standard_streams_that_are_not_there(folder: Path, words: tuple[str, ...], redirect: str) -> None:
    assert sdbuild(folder, *words, redirect=redirect)[0] == 0


@pytest.mark.parametrize("words", [("targets",), ("plan", "recipe=mine"), ("list", "recipe=mine")])
def test_a_full_disk_under_the_output(folder: Path, words: tuple[str, ...]) -> None:
    status, _, err = sdbuild(folder, *words, redirect="> /dev/full")
    assert status == 1
    assert "the disk is full" in err


def test_interrupts_at_any_moment_of_the_start(folder: Path) -> None:
    order = random.Random(7)
    program = str(Path(sys.executable).with_name("sdbuild"))
    for _ in range(10):
        process = subprocess.Popen([program, "plan", "recipe=mine"], cwd=folder, stdout=-1, stderr=-1, text=True)
        time.sleep(order.uniform(0.1, 0.6))  # Python's own start, before any line of ours, is Python's
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 130, -signal.SIGINT), err
        assert "Traceback" not in err or "sdbuild/console" not in err


def test_a_shell_leaves_its_loop_on_an_interrupt(folder: Path) -> None:
    """It does for a program that died of the signal; one that ends with 130 of its own accord is run again."""
    module = [sys.executable, "-m", "sdbuild.cli", "plan", "recipe=mine"]
    process = subprocess.Popen(module, cwd=folder, stdout=-1, stderr=-1, text=True)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGINT), err  # 0 where it was done before
    reader = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "bash", *module],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert reader.returncode in (0, 128 + signal.SIGPIPE)


class Unthought(Exception):  # noqa: N818
    pass


FAILURES: list[tuple[BaseException, int, str]] = [
    (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "/data/x: the disk is full. Free space there"),
    (OSError(errno.EDQUOT, "Quota exceeded", "/data/x"), 1, "/data/x: the quota of this disk is used up"),
    (OSError(errno.EIO, "Input/output error", "/data/x"), 1, "/data/x: Input/output error; a disk or its cable"),
    (OSError(errno.EROFS, "Read-only file system", "/a", None, "/b"), 1, "/a → /b: Read-only file system"),
    (PermissionError(errno.EACCES, "Permission denied", "/a"), 1, "/a: Permission denied; check who"),
    (MemoryError(), 1, "there is not enough memory"),
    (SdbuildError("plain words"), 1, "plain words"),
    (KeyboardInterrupt(), 130, "interrupted; what was finished is kept"),
    (SystemExit(3), 3, ""),
    (SystemExit("why"), 1, ""),
    (Unthought("a secret\nof two lines"), 70, "not foreseen: "),
    (RecursionError("maximum recursion depth exceeded"), 70, "not foreseen: RecursionError"),
]


@pytest.mark.parametrize(("error", "status", "said"), FAILURES, ids=[type(f[0]).__name__ + str(f[1]) for f in FAILURES])
def test_every_failure_has_words_and_a_status(
    error: BaseException,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path))

    def work() -> int:
        raise error

    assert endings.ending_of(work) == status
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


def test_a_report_says_where_and_how_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert endings.ended_by(Unthought("x")) == endings.UNFORESEEN
    (report,) = (tmp_path / "reports").iterdir()
    assert f"report: {report}" in capsys.readouterr().err
    text = report.read_text()
    assert "Unthought: x" in text
    assert "command line: " in text
    assert "hf_secret" not in text


def test_where_no_report_can_be_written_the_program_still_ends_with_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert endings.ended_by(Unthought("x")) == endings.UNFORESEEN
    assert "not foreseen: " in capsys.readouterr().err


def test_every_status_is_documented() -> None:
    text = DOCUMENTED.read_text(encoding="utf-8")
    for status, meaning in endings.STATUSES.items():
        assert f"| {status} | {meaning} |" in text
