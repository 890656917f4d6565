"""Weight files and packages: the layout is coremltools' own, to the byte."""

from pathlib import Path

import numpy as np
import pytest
from coremltools.libmilstoragepython import _BlobStorageWriter
from coremltools.proto import Model_pb2

from sdbuild.coreml.package import BlobType, Package, PackageError, WeightFile, WeightFileWriter, write_package


def test_writer_gives_the_bytes_of_the_library(tmp_path: Path) -> None:
    half = np.arange(5, dtype=np.float16)
    single = np.arange(40, dtype=np.float32)
    library = _BlobStorageWriter(str(tmp_path / "library.bin"))
    expected = [library.write_fp16_data(half.view(np.uint16)), library.write_float_data(single)]
    expected.append(library.write_uint6_data(np.arange(5, dtype=np.uint8)))
    del library
    packed = np.packbits(
        np.unpackbits(np.arange(5, dtype=np.uint8)[:, None], axis=1, count=6, bitorder="little"), bitorder="little"
    )
    with WeightFileWriter(tmp_path / "ours.bin") as writer:
        offsets = [writer.add(half, BlobType.FLOAT16, 10), writer.add([single[:7], single[7:]], BlobType.FLOAT32, 160)]
        offsets.append(writer.add(packed.tobytes(), BlobType.UINT6, 4, padding_bits=2))
    assert offsets == expected
    assert (tmp_path / "ours.bin").read_bytes() == (tmp_path / "library.bin").read_bytes()


def test_copy_moves_blobs_unchanged(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((300, 70)).astype(np.float32)
    with WeightFileWriter(tmp_path / "a.bin") as writer:
        writer.add(b"abc", BlobType.UINT8, 3)
        second = writer.add(values, BlobType.FLOAT32, values.nbytes)
    with WeightFile(tmp_path / "a.bin") as source, WeightFileWriter(tmp_path / "b.bin") as writer:
        copied = writer.copy(source, second)
        after = writer.add(b"z", BlobType.UINT8, 1)
    with WeightFile(tmp_path / "b.bin") as result:
        assert result.count == 2
        np.testing.assert_array_equal(result.array(copied, np.float32, (300, 70)), values)
        result.release(copied)
        assert bytes(result.raw(after)) == b"z"


@pytest.mark.parametrize("offset", [-64, 1, 128, 1 << 40])
def test_a_wrong_offset_is_an_error(tmp_path: Path, offset: int) -> None:
    with WeightFileWriter(tmp_path / "a.bin") as writer:
        writer.add(bytes(200), BlobType.UINT8, 200)
    with WeightFile(tmp_path / "a.bin") as weights, pytest.raises(PackageError, match=r"a\.bin"):
        weights.blob(offset)


def test_a_short_blob_is_an_error(tmp_path: Path) -> None:
    writer = WeightFileWriter(tmp_path / "a.bin")
    with pytest.raises(PackageError, match="10 bytes was given 3"):
        writer.add(b"abc", BlobType.UINT8, 10)


def test_packages_are_a_function_of_their_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        spec = Model_pb2.Model(specificationVersion=7)
        for key in sorted("xyzuvw", reverse=name == "b"):
            spec.description.metadata.userDefined[key] = key
        with WeightFileWriter(tmp_path / "weight.bin") as writer:
            writer.add(b"abc", BlobType.UINT8, 3)
        write_package(tmp_path / f"{name}.mlpackage", spec, tmp_path / "weight.bin")
    files = [
        path.relative_to(tmp_path / "a.mlpackage")
        for path in sorted((tmp_path / "a.mlpackage").rglob("*"))
        if path.is_file()
    ]
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "a.mlpackage" / file).read_bytes() == (tmp_path / "b.mlpackage" / file).read_bytes()
    package = Package.open(tmp_path / "a.mlpackage")
    assert package.spec.specificationVersion == 7
    assert package.weights is not None
    assert package.weights.count == 1


def test_a_directory_without_manifest_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"Manifest\.json is missing"):
        Package.open(tmp_path)


def test_a_damaged_specification_is_an_error(tmp_path: Path) -> None:
    write_package(tmp_path / "a.mlpackage", Model_pb2.Model(specificationVersion=7), None)
    (tmp_path / "a.mlpackage/Data/com.apple.CoreML/model.mlmodel").write_bytes(b"\xff\xff\xff")
    with pytest.raises(PackageError, match="damaged"):
        _ = Package.open(tmp_path / "a.mlpackage").spec
