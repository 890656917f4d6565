"""The store: blobs by sha256, trees, action results; see `Store`."""

from sdbuild.store.canonical import canonical_json, key_of
from sdbuild.store.collect import Collected, Garbage, Sizes
from sdbuild.store.errors import StoreError
from sdbuild.store.files import place
from sdbuild.store.outputs import Difference
from sdbuild.store.records import ActionResult
from sdbuild.store.retention import Held, Retention
from sdbuild.store.store import Store
from sdbuild.store.tree import EMPTY, Entry, Tree

__all__ = [
    "EMPTY",
    "ActionResult",
    "Collected",
    "Difference",
    "Entry",
    "Garbage",
    "Held",
    "Retention",
    "Sizes",
    "Store",
    "StoreError",
    "Tree",
    "canonical_json",
    "key_of",
    "place",
]
