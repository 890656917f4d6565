"""Where the cache is: `$SDBUILD_CACHE`, else the user's cache directory."""

import os
from pathlib import Path

from sdbuild.paths import user_path


def cache_directory() -> Path:
    """The root of the store; need not exist."""
    named = os.environ.get("SDBUILD_CACHE")
    if named:
        return user_path(named).absolute()
    from platformdirs import user_cache_path  # here, not above: whoever names a folder does not wait for it

    return user_cache_path("sdbuild")
