"""Access to the Hugging Face Hub: what a repository holds at a revision, and its files, downloaded once and checked.

The client library does the transfers (resumable, into the user's Hub cache); this module adds what a build needs on
top: one request for the file list, content hashes compared (over plain HTTP the client compares sizes only), patience
with an overloaded server, and errors that say what to do. ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_CACHE`` and
``HF_HUB_OFFLINE`` mean what they mean to the client.

The Hub's cache is the user's, and other programs' too: only the client adds to it, and nothing in it is ever removed.
A file of it that is not what it should be is passed over: it is fetched anew into a folder of the build's own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.hub_cache import COMMIT, is_intact, snapshot_files
from sdbuild.checkpoints.hub_errors import HubError, asked_to_wait, explain, is_offline, is_transient, overheard, reason
from sdbuild.paths import is_relative, user_path

Progress = Callable[[float, str], None]

_WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry of a transient failure
_LONGEST_WAIT = 120.0  # what a Hub may ask for; it is not waited for longer
_REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its size in bytes and its hash, as far as they are known.

    Attributes:
        name: the path in the repository.
        size: bytes, or None when the list was read from the cache.
        sha256: the content's hash, for files in large-file storage.
        git_sha1: git's blob hash, for the others.
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit.

    Attributes:
        name: ``owner/name``.
        commit: the full commit hash that the asked revision resolved to.
        files: every file at that commit; of an unreachable Hub, the ones that the cache holds.
        offline: the list comes from the cache because the Hub could not be reached.
    """

    name: str
    commit: str
    files: tuple[RemoteFile, ...]
    offline: bool = False


class Hub:
    """One Hub and one cache.

    Args:
        endpoint: the Hub's address; by default ``HF_ENDPOINT``, else huggingface.co.
        cache: the cache directory; by default ``HF_HUB_CACHE``, else the client's own.
        waits: seconds to wait before each retry, where the Hub does not say how long.
        say: called with what is waited for.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        cache: Path | None = None,
        waits: tuple[float, ...] = _WAITS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.endpoint = endpoint or os.environ.get("HF_ENDPOINT")
        environment = os.environ.get("HF_HUB_CACHE")
        self.cache = cache or (user_path(environment) if environment else None)
        self.waits = waits
        self.say = say

    def repository(self, name: str, revision: str | None = None) -> Repository:
        """Read what `name` holds at `revision` (a commit, branch or tag; the default branch when None).

        A Hub that cannot be reached is no failure while the cache holds a snapshot of the revision.

        Raises:
            HubError: there is no such repository or revision, access is refused, or the Hub cannot be reached.
        """
        from huggingface_hub import HfApi

        def ask() -> Any:
            return HfApi(endpoint=self.endpoint).model_info(name, revision=revision, files_metadata=True)

        where = f"{name}@{revision}" if revision else name
        try:
            info = self._patiently(ask, where)
        except HubError as error:
            cached = self._cached(name, revision or "main") if error.offline else None
            if cached is None:
                raise
            return cached
        if not COMMIT.fullmatch(str(info.sha)):
            raise HubError(f"{where}: the Hub names no commit for it, but {str(info.sha)[:60]!r}. Try again later.")
        files = (
            RemoteFile(item.rfilename, item.size, item.lfs.sha256 if item.lfs else None, item.blob_id)
            for item in info.siblings
            if is_relative(item.rfilename)  # a name that leads out of a folder is no file that could be wanted
        )
        return Repository(name, info.sha, tuple(sorted(files, key=lambda file: file.name)))

    def download(self, repository: Repository, names: Iterable[str], progress: Progress) -> dict[str, Path]:
        """Bring files into the cache and return where each lies, by its name.

        An interrupted transfer is resumed, in this call or the next one; a file that is there already costs nothing.

        Raises:
            HubError: a transfer failed for good, or a file's bytes are not the ones that the Hub or a lock declares.
        """
        known = {file.name: file for file in repository.files}
        files = [known[name] for name in names]
        total = sum(file.size or 0 for file in files) or 1
        done = 0
        paths: dict[str, Path] = {}
        for file in files:

            def report(partial: int, file: RemoteFile = file, before: int = done) -> None:
                amount = min(partial, file.size or 0)
                progress(
                    (before + amount) / total, f"{file.name}: {amount / 1e6:.0f} of {(file.size or 0) / 1e6:.0f} MB"
                )

            paths[file.name] = self._download(repository, file, report)
            done += file.size or 0
            report(file.size or 0, before=done - (file.size or 0))
        return paths

    def _download(self, repository: Repository, file: RemoteFile, report: Callable[[int], None]) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()

        def transfer(cache: Path | None = self.cache) -> Path:
            arguments: dict[str, Any] = {"revision": repository.commit, "endpoint": self.endpoint}
            if repository.offline:
                arguments["local_files_only"] = True
            return Path(hf_hub_download(repository.name, file.name, cache_dir=cache, **arguments))

        where = f"{repository.name}@{repository.commit[:12]}, {file.name}"
        path = self._watched(lambda: self._patiently(transfer, where), self._folder(repository.name), report)
        if is_intact(path, file):
            return path
        if repository.offline:
            raise HubError(
                f"{where}: its copy in the Hub cache is damaged ({path}), and the Hub cannot be reached. Connect to "
                "the network; nothing was removed from the cache."
            )
        self.say(f"{file.name}: the copy in the Hub cache is damaged ({path}); it is left there and fetched anew")
        # Not into the user's cache, where the damaged file may be in use; the build's own folder goes with the build.
        aside = Path(tempfile.mkdtemp(prefix="sdbuild-hub-"))  # in a worker, gone with the scratch folder
        atexit.register(shutil.rmtree, aside, ignore_errors=True)
        path = self._watched(lambda: self._patiently(lambda: transfer(aside), where), aside, report)
        if not is_intact(path, file):
            raise HubError(
                f"{where}: the downloaded file's hash is not the one that the Hub or the recipe's lock declares. "
                "Nothing was taken; look at the lock, at proxies and disks, then run again."
            )
        return path

    def _watched(self, work: Callable[[], Path], folder: Path, report: Callable[[int], None]) -> Path:
        """Run `work` in a thread and report, each second, how many bytes of its unfinished file are there."""
        started = time.time()
        future: Future[Path] = Future()

        def transfer() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        # A daemon, so that an interrupt from the keyboard ends the process and not after the file.
        threading.Thread(target=transfer, name="download", daemon=True).start()
        arrived = 0
        with overheard(self.say):
            while not wait([future], timeout=_REPORT_SECONDS).done:
                # A finished file has lost its unfinished name a moment before the client returns.
                arrived = max(arrived, _unfinished_bytes(folder / "blobs", started))
                report(arrived)
        return future.result()

    def _patiently(self, work: Callable[[], Any], where: str) -> Any:
        """Call `work`, again after a while when the failure is one that passes."""
        for pause in (*self.waits, None):
            try:
                return work()
            except Exception as error:
                if pause is None or is_offline(error) or not is_transient(error):
                    raise explain(error, where) from error
                asked = asked_to_wait(error)
                if asked is not None and asked > _LONGEST_WAIT:
                    raise explain(error, where) from error
                seconds = pause if asked is None else asked
                self.say(f"{where}: {reason(error)}; waits {seconds:.0f} s before it asks again")
                time.sleep(seconds)
        raise AssertionError("unreachable")

    def _folder(self, name: str) -> Path:
        from huggingface_hub.constants import HF_HUB_CACHE

        return (self.cache or Path(HF_HUB_CACHE)) / ("models--" + name.replace("/", "--"))

    def _cached(self, name: str, revision: str) -> Repository | None:
        found = snapshot_files(self._folder(name), revision)
        if found is None:
            return None
        commit, files = found
        return Repository(name, commit, tuple(RemoteFile(*file) for file in files), offline=True)


def _unfinished_bytes(blobs: Path, since: float) -> int:
    sizes = [0]
    for path in blobs.glob("*.incomplete") if blobs.is_dir() else ():
        try:
            status = path.stat()
        except FileNotFoundError:  # finished and renamed meanwhile
            continue
        if status.st_mtime >= since - 1:
            sizes.append(status.st_size)
    return max(sizes)
