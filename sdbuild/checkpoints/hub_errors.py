"""What went wrong with the Hub, in words that say what to do next."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sdbuild.errors import SdbuildError

_TOO_MANY = 429
_TRANSIENT_STATUS = frozenset({408, _TOO_MANY, 500, 502, 503, 504})


class HubError(SdbuildError):
    """The Hub did not give what was asked for.

    Attributes:
        offline: the Hub could not be reached at all.
    """

    def __init__(self, message: str, *, offline: bool = False) -> None:
        super().__init__(message)
        self.offline = offline


def is_offline(error: BaseException) -> bool:
    """Whether the Hub could not be reached, or must not be (``HF_HUB_OFFLINE``)."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    names = {"ConnectError", "ConnectTimeout", "ProxyError"}
    return any(isinstance(cause, OfflineModeIsEnabled) or type(cause).__name__ in names for cause in _causes(error))


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed after a while."""
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    # The transport's own failures (connection reset, time-out), and the client's size check, which is a bare OSError.
    from huggingface_hub.errors import HTTPError

    causes = list(_causes(error))
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return False
    return any(isinstance(cause, HTTPError) or "Consistency check failed" in str(cause) for cause in causes)


def asked_to_wait(error: BaseException) -> float | None:
    """The seconds that the Hub's answer asks to wait (``Retry-After``, RFC 9110 10.2.3); None where it says nothing."""
    for cause in _causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        value = headers.get("Retry-After") if headers is not None else None
        if value is None:
            continue
        if value.strip().isdecimal() and len(value) < 10:
            return float(value)
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None


def reason(error: BaseException) -> str:
    """A passing failure in a few words."""
    status = _status(error)
    if status == _TOO_MANY:
        return "too many requests (HTTP 429)"
    return f"the Hub has a problem (HTTP {status})" if status is not None else "the transfer was cut"


@contextlib.contextmanager
def overheard(say: Callable[[str], None]) -> Iterator[None]:
    """Pass on what the client's own retries say: it waits, minutes if the Hub asks for it, and only logs that."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logger, ear = logging.getLogger("huggingface_hub"), Ear(logging.WARNING)
    logger.addHandler(ear)
    try:
        yield
    finally:
        logger.removeHandler(ear)


def explain(error: BaseException, where: str) -> HubError:
    """Turn an error of the client into one for people; `where` is ``owner/name@revision[, file]``."""
    from huggingface_hub import errors

    repository = where.partition("@")[0].partition(",")[0]
    page = f"https://huggingface.co/{repository}"
    causes = list(_causes(error))
    status = _status(error)

    def caused_by(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    if is_offline(error):
        return HubError(
            f"{where}: the Hub cannot be reached, and the cache does not hold what is needed. Connect to the network "
            "(or unset HF_HUB_OFFLINE), or give a local checkpoint with source=PATH.",
            offline=True,
        )
    if caused_by(errors.GatedRepoError):
        return HubError(
            f"{where}: the repository is gated (HTTP {status}). Accept its conditions at {page} while logged in, then "
            "give a token of that account in HF_TOKEN (or run `hf auth login`)."
        )
    if caused_by(errors.DisabledRepoError):
        return HubError(f"{where}: the Hub has disabled access to this repository. Choose another model version.")
    if caused_by(errors.RevisionNotFoundError):
        return HubError(f"{where}: there is no such revision. The repository's commits are at {page}/commits.")
    if caused_by(errors.RepositoryNotFoundError):
        return HubError(
            f"{where}: there is no such repository, or it is private (HTTP {status}). Check the spelling of "
            "model.version; for a private repository give a token in HF_TOKEN (or run `hf auth login`)."
        )
    if caused_by(errors.EntryNotFoundError) and status == 404:
        return HubError(f"{where}: the file is not in the repository at this revision. See {page}/tree.")
    if caused_by(errors.HFValidationError):
        return HubError(f"{where}: this is no name of a repository; write owner/name, or a path that starts with ./")
    asked = asked_to_wait(error)
    more = f" It asks to wait {asked:.0f} s." if asked else ""
    return HubError(f"{where}: {_advice(status, error)}{more}")


def _advice(status: int | None, error: BaseException) -> str:
    match status:
        case 401:
            return "the Hub does not accept the token (HTTP 401). Renew the one in HF_TOKEN, or run `hf auth login`."
        case 403:
            return "the token may not read this repository (HTTP 403). Give it read access, or use another in HF_TOKEN."
        case 429:
            return "too many requests (HTTP 429). Wait some minutes and run again; with HF_TOKEN the limits are higher."
        case int() if status >= 500:
            return f"the Hub has a problem (HTTP {status}). Run again later; what was transferred is kept."
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in _causes(error)):
        return "the disk of the Hub cache is full. Free space, or point HF_HUB_CACHE at another disk; then run again."
    detail = " ".join(str(error).split())
    return f"the transfer failed ({type(error).__name__}: {detail}). Run again; what was transferred is kept."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: the client wraps a failed request in 'not found in the cache'."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _status(error: BaseException) -> int | None:
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None
