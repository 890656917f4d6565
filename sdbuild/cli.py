"""The `sdbuild` command's first lines: standard streams that exist, no imports from the working folder, and one end."""

import signal

# Until `main` can speak, an interrupt ends this process as it ends any program that says nothing of interrupts.
_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)

from sdbuild.isolation import leave_working_folder  # noqa: E402

leave_working_folder()  # before anything else is imported

import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

signal.signal(signal.SIGINT, _handler)
_SIGNALLED = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return one of the statuses of `sdbuild.console.endings`."""
    _open_streams()
    try:
        from sdbuild.console.endings import ending_of
        from sdbuild.console.program import run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return ending_of(lambda: run(sys.argv[1:] if arguments is None else arguments))


def _open_streams() -> None:
    """Give the process the standard streams that it was started without.

    Else the next file that is opened would get their numbers, and be written to by whoever means the stream.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False, errors="backslashreplace"))


def program() -> int:
    """Run the command line of this process, and end as shells expect it of a program that a signal stopped.

    A shell leaves a loop on Ctrl-C only if the program in it died of the signal, and not if it ended with a number.
    """
    status = main()
    number = status - _SIGNALLED
    if number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return status


if __name__ == "__main__":
    sys.exit(program())
