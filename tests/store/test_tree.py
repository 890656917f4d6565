"""Trees: sorted, canonical, safe to write out."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.store import Entry, StoreError, Tree

_EMPTY = hashlib.sha256(b"").hexdigest()
_entries = st.lists(
    st.builds(
        Entry,
        path=st.text("abcdé", min_size=1, max_size=3),
        mode=st.sampled_from([0o444, 0o555]),
        size=st.integers(0, 2**40),
        sha256=st.sampled_from([_EMPTY, "f" * 64]),
    ),
    unique_by=lambda entry: entry.path,
    max_size=5,
)


@settings(deadline=None)  # a busy machine is no failure
@given(_entries)
def test_order_of_entries_does_not_matter_and_manifest_round_trips(entries: list[Entry]) -> None:
    tree = Tree.of(entries)
    assert Tree.of(reversed(entries)) == tree
    assert Tree.parse(tree.manifest) == tree
    assert tree.digest == hashlib.sha256(tree.manifest).hexdigest()


def test_golden_digest() -> None:
    tree = Tree.of([Entry("b/weight.bin", 0o444, 0, _EMPTY), Entry("a", 0o555, 0, _EMPTY)])
    assert tree.digest == "545c246866123df76362c4dc2d71e82913364d4a5e223768b338674b02a36537"


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/../b", "./a", "a/", "a\0b"])
def test_paths_that_leave_the_tree_are_refused(path: str) -> None:
    with pytest.raises(StoreError, match="must be relative"):
        Tree.of([Entry(path, 0o444, 0, _EMPTY)])


def test_conflicting_paths_and_other_modes_are_refused() -> None:
    with pytest.raises(StoreError, match="twice"):
        Tree.of([Entry("a", 0o444, 0, _EMPTY), Entry("a", 0o444, 0, "f" * 64)])
    with pytest.raises(StoreError, match="both a file and a folder"):
        Tree.of([Entry("a", 0o444, 0, _EMPTY), Entry("a-b", 0o444, 0, _EMPTY), Entry("a/b", 0o444, 0, _EMPTY)])
    with pytest.raises(StoreError, match="mode"):
        Tree.of([Entry("a", 0o644, 0, _EMPTY)])


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[]", b'{"files":[{"path":"a"}],"format":1}', b"\xff"])
def test_what_is_no_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(StoreError):
        Tree.parse(manifest)


def test_a_manifest_in_other_words_is_refused() -> None:
    tree = Tree.of([Entry("a", 0o444, 0, _EMPTY)])
    with pytest.raises(StoreError, match="canonical"):
        Tree.parse(tree.manifest + b"\n")
