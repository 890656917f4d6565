"""File operations that either happen or do not: atomic writes, links that cost no space, directories swapped whole."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Literal

Placement = Literal["reflink", "link", "copy"]

_FICLONE = 0x40049409  # linux/fs.h: share the extents of another file
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h, renameat2
_RENAME_SWAP = 2  # sys/stdio.h on macOS, renamex_np
_NOT_HERE = frozenset(
    {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)
_without_reflink: set[tuple[int, int]] = set()


def sync(path: Path) -> None:
    """Make a file's bytes, or a directory's names, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_HERE | {errno.EROFS}:  # some file systems cannot sync directories
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, if there is none, in such a way that its name survives a loss of power."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync(path.parent)


def write_atomic(path: Path, data: bytes, temporary: Path) -> None:
    """Write a small file by way of `temporary` (same file system): readers see the old bytes or the new ones."""
    make_folder(path.parent)
    make_folder(temporary.parent)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def replace(temporary: Path, path: Path) -> None:
    """Put a finished file in its place, also where a folder stands that nobody put there on purpose."""
    try:
        temporary.replace(path)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST) or not path.is_dir():
            raise
        aside = temporary.with_name(f"{temporary.name}.folder")
        path.rename(aside)  # away in one step, and then removed at leisure
        temporary.replace(path)
        remove(aside)


def place(source: Path, destination: Path, *, link: bool = True) -> Placement:
    """Give a file a second name: a reflink where the file system has them, else a hard link, else a copy.

    Args:
        source: a regular file (links are followed).
        destination: must not exist.
        link: whether a hard link will do; not where the two files may come to differ.
    """
    real = source.resolve()
    if _reflink(real, destination):
        return "reflink"
    if link:
        try:
            os.link(real, destination)
        except OSError as error:
            if error.errno not in _NOT_HERE | {errno.EMLINK, errno.EACCES}:
                raise
        else:
            return "link"
    shutil.copyfile(real, destination)
    return "copy"


def _reflink(source: Path, destination: Path) -> bool:
    devices = (source.stat().st_dev, destination.parent.stat().st_dev)
    if devices in _without_reflink:
        return False
    try:
        if sys.platform == "darwin":
            _clone_file(source, destination)
        elif sys.platform == "linux":
            _clone_extents(source, destination)
        else:
            return False
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        _without_reflink.add(devices)
        return False
    return True


def _clone_extents(source: Path, destination: Path) -> None:
    with source.open("rb") as reader, destination.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            destination.unlink()
            raise


def _clone_file(source: Path, destination: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.clonefile(os.fsencode(source), os.fsencode(destination), 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(destination))


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        names = (os.fsencode(first), os.fsencode(second))
        return bool(library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
    if sys.platform == "darwin":
        return bool(library.renamex_np(os.fsencode(first), os.fsencode(second), _RENAME_SWAP) == 0)
    return False


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; nothing happens when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
