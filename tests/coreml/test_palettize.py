import coremltools as ct
import coremltools.optimize as cto
import numpy as np
import pytest
from coremltools.models.neural_network import quantization_utils
from coremltools.optimize.coreml import _quantization_passes

from sdbuild.coreml import program
from sdbuild.coreml.package import Package
from sdbuild.coreml.palettize import palettize
from sdbuild.coreml.program import ProgramError
from tests.coreml import programs


@pytest.fixture(autouse=True)
def exact_kmeans_in_coremltools(monkeypatch):
    """Without scikit-learn coremltools clusters half precision only; its own exact clustering serves every type."""
    original = quantization_utils._get_kmeans_lookup_table_and_weight

    def exact(bits, weight, force_kmeans1d=False, cluster_dim=1, vector_axis=None):
        return original(bits, weight, True, cluster_dim, vector_axis)

    monkeypatch.setattr(_quantization_passes, "_get_kmeans_lookup_table_and_weight", exact)


def by_coremltools(source, out, bits, **options):
    config = cto.coreml.OpPalettizerConfig(mode="kmeans", nbits=bits, **options)
    model = ct.models.MLModel(str(source), skip_model_load=True)
    settings = cto.coreml.OptimizationConfig(global_config=config)
    name = next(name for name in constants(source) if name.startswith("table"))
    settings.set_op_name(name, None)
    cto.coreml.palettize_weights(model, settings).save(str(out))
    return out


def decompressed(path, out):
    """Every constant as coremltools decompresses it, by the name it had before palettization."""
    cto.coreml.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True)).save(str(out))
    return {name.removesuffix("_palettized"): value for name, value in constants(out).items()}


def constants(path):
    package = Package.open(path)
    result = {}
    for operation in program.operations(program.main_block(package)):
        for value in program.stored_values(operation):
            shape = program.shape_of(value.type)
            dtype = {10: np.float16, 11: np.float32}.get(value.type.tensorType.dataType)
            if operation.type == "const" and dtype is not None:
                array = package.weights.array(value.blobFileValue.offset, dtype, shape).astype(np.float64)
                result[operation.outputs[0].name] = array
    return result


def structure(path):
    """The compressed constants, without offsets and coremltools' name suffix; and the types of all blobs.

    coremltools optimises the rest of the program once more, so only the constants can be compared.
    """
    package = Package.open(path)
    block = program.main_block(package)
    blobs = []
    for operation in program.operations(block):
        for value in program.stored_values(operation):
            blob = package.weights.blob(value.blobFileValue.offset)
            blobs.append((blob.type, blob.size, blob.padding_bits))
            value.blobFileValue.offset = 0
    compressed = [operation for operation in block.operations if operation.type.startswith("constexpr_")]
    return sorted(str(operation).replace("_palettized", "") for operation in compressed), blobs


CASES = [
    *[("iOS16", "FLOAT16", bits, {}) for bits in (1, 2, 4, 6, 8)],
    ("iOS16", "FLOAT32", 4, {}),
    ("iOS17", "FLOAT16", 6, {}),
    *[("iOS18", "FLOAT16", bits, {}) for bits in (1, 3, 6)],
    ("iOS18", "FLOAT32", 6, {}),
    ("iOS18", "FLOAT16", 4, {"granularity": "per_grouped_channel", "group_size": 16}),
    ("iOS18", "FLOAT16", 1, {"granularity": "per_grouped_channel", "group_size": 32}),
]


@pytest.mark.parametrize(("target", "precision", "bits", "options"), CASES)
def test_same_structure_and_no_larger_error_than_coremltools(tmp_path, target, precision, bits, options):
    source = programs.package(tmp_path / "source.mlpackage", target, precision)
    reference = by_coremltools(source, tmp_path / "reference.mlpackage", bits, **options)

    report = palettize(source, tmp_path / "ours.mlpackage", bits=bits, **options)

    ours_structure, ours_blobs = structure(tmp_path / "ours.mlpackage")
    reference_structure, reference_blobs = structure(reference)
    assert ours_structure == reference_structure
    assert sorted(ours_blobs) == sorted(reference_blobs)
    plain = constants(source)
    ours = decompressed(tmp_path / "ours.mlpackage", tmp_path / "ours-dense.mlpackage")
    theirs = decompressed(reference, tmp_path / "reference-dense.mlpackage")
    assert {tensor.name for tensor in report.tensors} >= {"linear_to_fp16"} if precision == "FLOAT16" else {"linear"}
    for tensor in report.tensors:
        error = float(((ours[tensor.name] - plain[tensor.name]) ** 2).sum())
        other = float(((theirs[tensor.name] - plain[tensor.name]) ** 2).sum())
        # Boundaries between clusters of float32 values stand on a grid of relative width 2⁻¹².
        assert error <= other * (1 + (1e-5 if precision == "FLOAT32" else 1e-12)), tensor.name
        assert error == pytest.approx(tensor.squared_error, rel=1e-5)
        energy = float((plain[tensor.name] ** 2).sum())
        assert tensor.signal_to_noise_db == pytest.approx(10 * np.log10(energy / error), abs=1e-4)
    for name in plain.keys() - {tensor.name for tensor in report.tensors}:
        assert (ours[name] == plain[name]).all()


def test_report_tells_what_was_left_alone_and_sizes(tmp_path):
    source = programs.package(tmp_path / "source.mlpackage", "iOS18")

    report = palettize(source, tmp_path / "out.mlpackage", bits=4, granularity="per_grouped_channel", group_size=16)

    reasons = {untouched.name: untouched.reason for untouched in report.untouched}
    assert reasons == {
        "table_to_fp16": "it is a table of embeddings",
        "plane_to_fp16": "groups of 16 do not divide its 1 channels",
    }
    linear = next(tensor for tensor in report.tensors if tensor.name == "linear_to_fp16")
    assert (linear.groups, linear.bytes_before, linear.bytes_after) == (4, 64 * 64 * 2, 64 * 64 // 2 + 4 * 16 * 2)
    assert report.bytes_before == Package.open(source).weights.path.stat().st_size
    assert report.bytes_after == Package.open(tmp_path / "out.mlpackage").weights.path.stat().st_size


def test_names_stay_so_the_rest_of_the_program_does(tmp_path):
    source = programs.package(tmp_path / "source.mlpackage")

    palettize(source, tmp_path / "out.mlpackage", bits=6)

    before, after = (program.main_block(Package.open(path)) for path in (source, tmp_path / "out.mlpackage"))
    for plain, palettized in zip(before.operations, after.operations, strict=True):
        assert plain.outputs[0].name == palettized.outputs[0].name
        if palettized.type == plain.type != "const":
            assert plain == palettized


def test_result_depends_neither_on_threads_nor_on_what_is_clustered_together(tmp_path, monkeypatch):
    source = programs.package(tmp_path / "source.mlpackage")
    trees = []
    for workers, together in ((1, 64), (5, 64), (5, 1), (2, 2)):
        monkeypatch.setattr("sdbuild.coreml.palettize._WINDOW_HISTOGRAMS", together)
        out = tmp_path / f"{workers}-{together}.mlpackage"
        palettize(source, out, bits=6, exceptions={"linear_to_fp16": 4}, workers=workers)
        trees.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})

    assert trees[1:] == trees[:1] * 3


def test_exceptions_by_name(tmp_path):
    source = programs.package(tmp_path / "source.mlpackage")

    report = palettize(
        source, tmp_path / "out.mlpackage", bits=4, exceptions={"linear_to_fp16": 8, "right_to_fp16": None}
    )

    assert {tensor.name: tensor.bits for tensor in report.tensors} == {
        "conv_to_fp16": 4,
        "linear_to_fp16": 8,
        "plane_to_fp16": 4,
    }
    assert "the configuration leaves it alone" in {one.reason for one in report.untouched}
    with pytest.raises(ProgramError, match="called nothing_of_the_kind"):
        palettize(source, tmp_path / "other.mlpackage", bits=4, exceptions={"nothing_of_the_kind": 8})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
def test_a_weight_that_is_not_finite_is_named(tmp_path, bad, precision):
    values = programs.weights()
    values["right"][3, 5] = bad
    source = programs.package(tmp_path / "source.mlpackage", precision=precision, values=values)

    with pytest.raises(ProgramError, match=r"the weight right\S* of .* a value is not a finite number"):
        palettize(source, tmp_path / "out.mlpackage", bits=6)

    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


def test_few_values_are_exact_and_both_zeros_are_one(tmp_path):
    few = np.random.default_rng(0).choice([-0.0, 0.0, 0.5, -1.25], (64, 64)).astype(np.float32)
    source = programs.package(tmp_path / "source.mlpackage", values=programs.weights(linear=few))

    report = palettize(source, tmp_path / "out.mlpackage", bits=2)

    linear = next(tensor for tensor in report.tensors if tensor.name == "linear_to_fp16")
    assert (linear.squared_error, linear.signal_to_noise_db) == (0, None)
    dense = decompressed(tmp_path / "out.mlpackage", tmp_path / "dense.mlpackage")
    assert (dense["linear_to_fp16"] == few).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "3-bit look-up tables need iOS 18"),
        ({"bits": 4, "granularity": "per_grouped_channel"}, "tables for groups of channels need iOS 18"),
        ({"bits": 5}, "5 bits"),
    ],
)
def test_what_the_opset_cannot_hold(tmp_path, options, message):
    source = programs.package(tmp_path / "source.mlpackage")

    with pytest.raises(ProgramError, match=message):
        palettize(source, tmp_path / "out.mlpackage", **options)


def test_a_palettized_package_is_left_as_it_is(tmp_path):
    source = programs.package(tmp_path / "source.mlpackage")
    palettize(source, tmp_path / "once.mlpackage", bits=4)

    report = palettize(tmp_path / "once.mlpackage", tmp_path / "twice.mlpackage", bits=4)

    assert report.tensors == ()
    once, twice = (Package.open(tmp_path / f"{name}.mlpackage") for name in ("once", "twice"))
    assert once.spec == twice.spec
    assert once.weights.path.read_bytes() == twice.weights.path.read_bytes()
