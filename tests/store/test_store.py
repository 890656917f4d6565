"""Artifacts go in and come out whole; whatever happens to the files meanwhile is noticed."""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sdbuild.store import Difference, Store, StoreError, place
from sdbuild.store import files as file_operations
from sdbuild.store import stats as stat_cache

FILES = {"Model.mlpackage/Manifest.json": b"{}", "Model.mlpackage/Data/weight.bin": b"w" * 5000, "modules.json": b"[]"}
Filler = Callable[[str, Mapping[str, bytes]], Path]
Overwriter = Callable[[Path, bytes], None]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is hashed from now on."""
    seen: list[Path] = []
    original = stat_cache.hash_file

    def counting(path: Path) -> str:
        seen.append(path)
        return original(path)

    monkeypatch.setattr(stat_cache, "hash_file", counting)
    return seen


def _blob(store: Store, digest: str, path: str) -> Path:
    located = store.locate(digest)
    assert located is not None
    return located[path]


def test_a_tree_goes_in_and_comes_out(store: Store, fill: Filler, tmp_path: Path) -> None:
    directory = fill("in", FILES)
    (directory / "modules.json").chmod(0o755)
    (directory / "empty").mkdir()
    tree = store.put_tree(directory)
    assert not directory.exists()
    assert store.load_tree(tree.digest) == tree
    assert store.has_tree(tree.digest)

    output = tmp_path / "build" / "Resources"
    store.materialise(tree.digest, output)
    assert {p.relative_to(output).as_posix(): p.read_bytes() for p in output.rglob("*") if p.is_file()} == FILES
    assert stat.S_IMODE((output / "modules.json").stat().st_mode) == 0o555
    assert stat.S_IMODE((output / "Model.mlpackage/Manifest.json").stat().st_mode) == 0o444
    assert stat.S_IMODE(_blob(store, tree.digest, "modules.json").stat().st_mode) == 0o444
    assert store.matches(tree.digest, output)
    assert [path.name for path in output.parent.iterdir()] == ["Resources"]
    assert list(store.layout.scratch.iterdir()) == []


def test_the_digest_depends_on_names_modes_and_bytes_alone(store: Store, fill: Filler) -> None:
    first = store.put_tree(fill("a", FILES), move=False)
    again = fill("b", dict(reversed(FILES.items())))
    os.utime(again / "modules.json", (1, 1))
    assert store.put_tree(again) == first
    assert store.put_tree(fill("c", {**FILES, "modules.json": b"[1]"})) != first
    assert store.sizes().blobs == 4


def test_without_move_the_directory_stays_and_shares_nothing(store: Store, fill: Filler, overwrite: Overwriter) -> None:
    directory = fill("in", FILES)
    tree = store.put_tree(directory, move=False)
    overwrite(directory / "modules.json", b"{}")
    assert store.has_tree(tree.digest)
    assert (directory / "Model.mlpackage/Data/weight.bin").stat().st_nlink == 1


def test_moving_never_takes_a_file_that_somebody_else_has_a_name_for(
    store: Store, fill: Filler, tmp_path: Path, overwrite: Overwriter
) -> None:
    mine = fill("mine", {"checkpoint": b"precious"}) / "checkpoint"
    (tmp_path / "out").mkdir()
    os.link(mine, tmp_path / "out" / "weights")
    tree = store.put_tree(tmp_path / "out")
    assert stat.S_IMODE(mine.stat().st_mode) != 0o444
    mine.write_bytes(b"PRECIOUS")
    assert store.has_tree(tree.digest)


def test_a_link_stands_for_the_content_of_a_file_that_stays_as_it_is(
    store: Store, fill: Filler, tmp_path: Path
) -> None:
    mine = tmp_path / "weights"
    mine.write_bytes(b"precious")
    before = mine.stat()
    directory = fill("in", FILES)
    (directory / "link").symlink_to(mine)
    tree = store.put_tree(directory)
    after = mine.stat()
    assert (after.st_ctime_ns, after.st_nlink, after.st_mode) == (before.st_ctime_ns, 1, before.st_mode)
    mine.write_bytes(b"PRECIOUS")
    assert store.has_tree(tree.digest)


def test_a_link_to_a_blob_costs_no_copy(store: Store, fill: Filler, reads: list[Path]) -> None:
    tree = store.put_tree(fill("in", FILES))
    places = store.locate(tree.digest)
    assert places is not None
    directory = fill("again", {})
    directory.mkdir(exist_ok=True)
    for path, blob in places.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).symlink_to(blob)
    reads.clear()
    assert store.put_tree(directory).digest == tree.digest
    assert reads == []


@pytest.mark.parametrize("target", [".", "nowhere"])
def test_a_link_to_anything_but_a_file_is_refused(store: Store, fill: Filler, target: str) -> None:
    directory = fill("in", FILES)
    (directory / "link").symlink_to(target)
    with pytest.raises(StoreError, match=r"not a regular file|cannot be read"):
        store.put_tree(directory)


def test_nothing_is_read_again_while_nothing_changes(
    store: Store, fill: Filler, tmp_path: Path, reads: list[Path]
) -> None:
    tree = store.put_tree(fill("in", FILES))
    reads.clear()
    for name in ("first", "second"):  # hard links of one blob, where there are no reflinks
        store.materialise(tree.digest, tmp_path / name)
    store.materialise(tree.digest, tmp_path / "first")  # replaces, so links go away too
    store.discard(tmp_path / "second")
    later = Store(store.root)
    assert later.has_tree(tree.digest)
    assert later.matches(tree.digest, tmp_path / "first")
    assert reads == []


def test_removing_an_output_by_hand_costs_one_reading(
    store: Store, fill: Filler, tmp_path: Path, reads: list[Path]
) -> None:
    tree = store.put_tree(fill("in", {"a": b"a", "b": b"b"}))
    store.materialise(tree.digest, tmp_path / "out")
    reads.clear()
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert store.has_tree(tree.digest)
    assert len(reads) <= 2
    reads.clear()
    assert store.has_tree(tree.digest)
    assert reads == []


@pytest.mark.parametrize("linked", [True, False])
def test_tampering_with_an_output_is_noticed_and_never_reaches_the_cache_unseen(
    store: Store, fill: Filler, tmp_path: Path, overwrite: Overwriter, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not linked:
        monkeypatch.setattr(file_operations.os, "link", _no_links)
    tree = store.put_tree(fill("in", FILES))
    output = tmp_path / "out"
    store.materialise(tree.digest, output)
    overwrite(output / "modules.json", b"{}")  # same size, an instant later
    assert not store.matches(tree.digest, output)
    assert store.differences(tree.digest, output) == [Difference("changed", "modules.json")]
    shared = (output / "modules.json").stat().st_nlink > 1
    assert shared or store.has_tree(tree.digest)
    if shared:
        assert store.missing(tree.digest) == ["modules.json"]
        with pytest.raises(StoreError, match=r"lost modules\.json"):
            store.materialise(tree.digest, output)
        assert store.sizes().corrupt_bytes == 2
    assert store.put_tree(fill("again", FILES)) == tree
    store.materialise(tree.digest, output)
    assert store.matches(tree.digest, output)
    assert (output / "modules.json").read_bytes() == b"[]"


def _no_links(source: object, destination: object) -> None:
    raise OSError(file_operations.errno.EXDEV, "Invalid cross-device link")


def test_missing_and_added_files_are_differences(store: Store, fill: Filler, tmp_path: Path) -> None:
    tree = store.put_tree(fill("in", FILES))
    output = tmp_path / "out"
    assert not store.matches(tree.digest, output)
    store.materialise(tree.digest, output)
    (output / "Model.mlpackage/extra").write_text("")
    (output / "modules.json").unlink()
    assert set(store.differences(tree.digest, output)) == {
        Difference("extra", "Model.mlpackage/extra"),
        Difference("missing", "modules.json"),
    }
    (output / "modules.json").symlink_to("Model.mlpackage/Manifest.json")
    assert Difference("changed", "modules.json") in store.differences(tree.digest, output)


def test_a_damaged_blob_is_dropped_and_a_deleted_one_is_missed(
    store: Store, fill: Filler, overwrite: Overwriter
) -> None:
    tree = store.put_tree(fill("in", FILES))
    overwrite(_blob(store, tree.digest, "Model.mlpackage/Data/weight.bin"), b"x")
    _blob_of = _blob(Store(store.root), store.put_tree(fill("other", {"only": b"only"})).digest, "only")
    _blob_of.unlink()
    assert not store.has_tree(tree.digest)
    assert store.missing(tree.digest) == ["Model.mlpackage/Data/weight.bin"]
    assert store.put_tree(fill("in", FILES)) == tree
    assert store.has_tree(tree.digest)


def test_a_damaged_manifest_is_no_tree(store: Store, fill: Filler) -> None:
    tree = store.put_tree(fill("in", FILES))
    store.layout.tree(tree.digest).write_bytes(tree.manifest.replace(b"modules", b"Modules"))
    assert store.load_tree(tree.digest) is None
    assert not store.has_tree(tree.digest)
    assert store.put_tree(fill("in", FILES)) == tree
    assert store.has_tree(tree.digest)


def test_an_input_is_made_of_links_to_the_content(store: Store, fill: Filler, tmp_path: Path) -> None:
    tree = store.put_tree(fill("in", FILES))
    store.materialise(tree.digest, tmp_path / "role", mode="input")
    assert (tmp_path / "role/modules.json").is_symlink()
    assert (tmp_path / "role/modules.json").read_bytes() == b"[]"


def test_materialising_replaces_whatever_stands_there(
    store: Store, fill: Filler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = store.put_tree(fill("in", FILES))
    fill("out", {"old": b"old"})
    store.materialise(tree.digest, tmp_path / "out")
    assert store.matches(tree.digest, tmp_path / "out")
    fill("out", {"old": b"old"})
    monkeypatch.setattr("sdbuild.store.outputs.exchange", lambda first, second: False)
    store.materialise(tree.digest, tmp_path / "out")
    assert store.matches(tree.digest, tmp_path / "out")
    (tmp_path / "file").write_text("a file")
    store.materialise(tree.digest, tmp_path / "file")
    assert store.matches(tree.digest, tmp_path / "file")
    assert not list(tmp_path.glob(".*"))


def test_what_dead_processes_left_is_swept_and_what_live_ones_make_is_not(
    store: Store, fill: Filler, tmp_path: Path
) -> None:
    tree = store.put_tree(fill("in", FILES))
    ours = store.scratch()
    pid, start, boot, place, _ = ours.name.split(".")
    dead = [f"{pid}.1.{boot}.{place}.0", f"999999999.{start}.{boot}.{place}.0", f"{pid}.{start}.other.{place}.0"]
    elsewhere = f"{pid}.{start}.{boot}.elsewhere.0"
    for name in [*dead, elsewhere, "not-ours"]:
        (store.layout.scratch / name).mkdir()
        (tmp_path / f".out.{name}.sdbuild-unfinished").mkdir()
    Store(store.root).materialise(tree.digest, tmp_path / "out")
    assert {path.name for path in store.layout.scratch.iterdir()} == {ours.name, elsewhere}
    assert [path.name for path in tmp_path.glob(".out*")] == [f".out.{elsewhere}.sdbuild-unfinished"]


def test_a_read_only_store_writes_nothing(store: Store, fill: Filler, tmp_path: Path, overwrite: Overwriter) -> None:
    absent = Store(tmp_path / "absent", read_only=True)
    external = fill("checkpoint", {"model.safetensors": b"x"}) / "model.safetensors"
    assert absent.lookup("0" * 64) is None
    assert absent.slot_read("recipe/convert:unet") is None
    assert list(absent.history("convert:unet")) == []
    assert absent.probe_reference({"a": external}) is None
    assert not absent.has_tree("0" * 64)
    assert not absent.matches("0" * 64, tmp_path)
    assert absent.sizes().blobs == 0
    with pytest.raises(StoreError, match="reading only"):
        absent.put_tree(tmp_path)
    assert not (tmp_path / "absent").exists()

    tree = store.put_tree(fill("in", FILES))
    overwrite(_blob(store, tree.digest, "modules.json"), b"{}")
    before = _snapshot(store.root)
    reader = Store(store.root, read_only=True)
    assert reader.missing(tree.digest) == ["modules.json"]
    assert _snapshot(store.root) == before


def _snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in root.rglob("*")}


def test_referenced_files_stay_where_they_are(store: Store, fill: Filler, tmp_path: Path, reads: list[Path]) -> None:
    directory = fill("checkpoint", {"unet/config.json": b"{}", "unet/model.safetensors": b"weights" * 1000})
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*.*")}
    assert store.probe_reference(files) is None
    progress: list[float] = []
    tree = store.reference_tree(files, progress=lambda fraction, _: progress.append(fraction))
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert store.sizes().blobs == 0
    assert store.has_tree(tree.digest)
    reads.clear()
    assert Store(store.root, read_only=True).probe_reference(files) == tree.digest
    assert store.reference_tree(files) == tree
    assert reads == []
    store.materialise(tree.digest, tmp_path / "input", mode="input")
    assert (tmp_path / "input/unet/config.json").resolve() == directory / "unet/config.json"
    store.materialise(tree.digest, tmp_path / "output")
    assert (directory / "unet/config.json").stat().st_nlink == 1  # a user's file is never linked into an output
    assert stat.S_IMODE((tmp_path / "output/unet/config.json").stat().st_mode) == 0o444


def test_a_changed_or_moved_reference_is_noticed(store: Store, fill: Filler, reads: list[Path]) -> None:
    directory = fill("checkpoint", {"model.safetensors": b"weights"})
    file = directory / "model.safetensors"
    tree = store.reference_tree({"model.safetensors": file})
    file.touch()
    reads.clear()
    assert store.probe_reference({"model.safetensors": file}) is None
    assert store.has_tree(tree.digest)  # read again: the same bytes
    assert reads == [file]
    moved = file.rename(directory / "moved.safetensors")
    assert not store.has_tree(tree.digest)
    assert store.reference_tree({"model.safetensors": moved}) == tree
    assert store.has_tree(tree.digest)
    moved.write_bytes(b"WEIGHTS")
    assert not store.has_tree(tree.digest)


def test_a_reference_to_nothing_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="check the path"):
        store.reference_tree({"a": tmp_path / "absent"})
    with pytest.raises(StoreError, match="regular file"):
        store.reference_tree({"a": tmp_path})
    with pytest.raises(StoreError, match="has no tree"):
        store.materialise("0" * 64, tmp_path / "out")


def test_a_blob_that_a_stage_linked_into_its_output_is_not_copied(
    store: Store, fill: Filler, tmp_path: Path, reads: list[Path]
) -> None:
    tree = store.put_tree(fill("in", FILES))
    reads.clear()
    store.materialise(tree.digest, tmp_path / "role", mode="input")
    (tmp_path / "out").mkdir()
    place(tmp_path / "role/modules.json", tmp_path / "out/modules.json")
    store.put_tree(tmp_path / "out")
    assert len(reads) <= 1
    assert store.has_tree(tree.digest)
    assert store.sizes().blobs == 3


def test_verifying_finds_damage_that_no_status_shows(store: Store, fill: Filler, overwrite: Overwriter) -> None:
    tree = store.put_tree(fill("in", FILES))
    blob = _blob(store, tree.digest, "modules.json")
    assert store.verify() == []
    overwrite(blob, b"{}")
    store._stats.remember(blob.stat(), blob.name)  # as if the disk had changed the bytes and nothing else
    assert store.has_tree(tree.digest)
    assert store.verify() == [blob.name]
    assert store.missing(tree.digest) == ["modules.json"]


def test_a_reference_has_the_same_digest_whatever_its_files_modes(store: Store, fill: Filler) -> None:
    file = fill("checkpoint", {"model": b"model"}) / "model"
    tree = store.reference_tree({"model": file})
    file.chmod(0o755)
    assert store.reference_tree({"model": file}) == tree
    assert store.probe_reference({"model": file}) == tree.digest
