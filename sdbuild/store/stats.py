"""The stat cache: which content a file had when it was last read, so that an unchanged file is not read again.

A record says: the file with this device and inode, when it had this size, modification and change time, had this
sha256. Any difference in any of these means that the file is read again. Because the inode is the key, all hard links
of a file share one record. The cache is never truth: losing it costs reading time and nothing else.

Records are lines appended to one file in single writes, each with its own checksum: any number of processes can write,
a SIGKILL loses at most a line, and a reader needs no lock and writes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import zlib
from pathlib import Path

from sdbuild.store.errors import StoreError
from sdbuild.store.layout import Layout

_TICK_NS = 10_000_000  # a kernel's clock for file times may stand still for as long (100 Hz)
_COARSE_NS = 2_000_000_000  # file systems that keep whole seconds
_COMPACT_BYTES = 4_000_000
_KEPT_RECORDS = 10_000
_CHUNK = 1 << 20

_Identity = tuple[int, int]
_Record = tuple[int, int, int, str]


class StatCache:
    """Digests of files by their stat, in the log of one store; in memory alone if the store is read-only."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.stats
        self._read_only = layout.read_only
        self._lock = threading.Lock()
        self._records: dict[_Identity, _Record] = {}
        self._log_identity: _Identity | None = None
        self._offset = 0

    def known(self, status: os.stat_result) -> str | None:
        """The sha256 of the file that has this status now, or None when the file has to be read."""
        with self._lock:
            digest = self._match(status)
            if digest is None and self._reload():
                digest = self._match(status)
            return digest

    def remember(self, status: os.stat_result, digest: str) -> None:
        """Note the content of a file: `status` must have been taken at a time when the content was certain."""
        newest = max(status.st_mtime_ns, status.st_ctime_ns)
        whole_seconds = status.st_mtime_ns % 1_000_000_000 == 0 and status.st_ctime_ns % 1_000_000_000 == 0
        if whole_seconds and abs(time.time_ns() - newest) < _COARSE_NS:
            return  # a later write within this second would leave the same times
        identity = (status.st_dev, status.st_ino)
        record = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest)
        with self._lock:
            if self._records.get(identity) == record:
                return
            self._records.pop(identity, None)
            self._records[identity] = record
            too_long = not self._read_only and self._append(_line(identity, record))
        if too_long:
            self.compact()

    def digest(self, path: Path) -> tuple[str, os.stat_result]:
        """The sha256 of a file (links followed) and the status it had, read only if its status is not known.

        Raises:
            StoreError: the file is gone, unreadable, or is written to all the time.
        """
        try:
            for _ in range(3):
                before = path.stat()
                digest = self.known(before)
                if digest is not None:
                    return digest, before
                settle(before)
                digest = hash_file(path)
                after = path.stat()
                if _same(before, after):
                    self.remember(after, digest)
                    return digest, after
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be read ({error.strerror}); check that it exists and is readable"
            ) from error
        raise StoreError(f"{path}: keeps changing while it is read; wait until the program that writes it is done")

    def compact(self) -> None:
        """Rewrite the log with the newest records alone; records that others append meanwhile may be lost."""
        with self._lock:
            self._reload()
            self._records = dict(list(self._records.items())[-_KEPT_RECORDS:])
            temporary = self._layout.temporary()
            temporary.write_bytes(b"".join(_line(identity, record) for identity, record in self._records.items()))
            temporary.replace(self._path)

    def _match(self, status: os.stat_result) -> str | None:
        record = self._records.get((status.st_dev, status.st_ino))
        if record is None or record[:3] != (status.st_size, status.st_mtime_ns, status.st_ctime_ns):
            return None
        return record[3]

    def _reload(self) -> bool:
        """Read what was appended since the last time; whether there was anything."""
        try:
            with self._path.open("rb") as log:
                status = os.fstat(log.fileno())
                identity = (status.st_dev, status.st_ino)
                if identity != self._log_identity or status.st_size < self._offset:
                    self._log_identity, self._offset = identity, 0
                if status.st_size == self._offset:
                    return False
                log.seek(self._offset)
                data = log.read()
        except OSError:
            return False
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            parsed = _parse(line)
            if parsed is not None:
                self._records.pop(parsed[0], None)  # so that the dictionary's order is that of the last mention
                self._records[parsed[0]] = parsed[1]
        return bool(complete)

    def _append(self, line: bytes) -> bool:
        """Add a line to the log; whether the log has grown too long."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError:
            return False  # a full or read-only disk must not stop a build over its speed
        try:
            with contextlib.suppress(OSError):
                os.write(descriptor, line)
            return os.fstat(descriptor).st_size > _COMPACT_BYTES
        finally:
            os.close(descriptor)


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def settle(status: os.stat_result) -> None:
    """Wait (10 ms at most) until a new write to the file must give it times other than these."""
    age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    if 0 <= age < _TICK_NS:
        time.sleep((_TICK_NS - age) / 1e9)


def _same(first: os.stat_result, second: os.stat_result) -> bool:
    return all(
        getattr(first, field) == getattr(second, field)
        for field in ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    )


def _line(identity: _Identity, record: _Record) -> bytes:
    body = " ".join(map(str, (*identity, *record))).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> tuple[_Identity, _Record] | None:
    checksum, _, body = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        device, inode, size, modified, changed, digest = body.decode("ascii").split(" ")
        return (int(device), int(inode)), (int(size), int(modified), int(changed), digest)
    except ValueError:
        return None
