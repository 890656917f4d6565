"""Libraries that talk when they are loaded, kept from it."""

import logging


def hush() -> None:
    """Keep coremltools from telling that this is no Mac, line by line, when it is loaded."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
