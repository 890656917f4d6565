import numpy as np
import pytest

from sdbuild.coreml import program
from sdbuild.coreml.chunk import chunk
from sdbuild.coreml.convert import convert
from sdbuild.coreml.package import Package
from sdbuild.coreml.palettize import palettize
from sdbuild.coreml.program import ProgramError
from sdbuild.coreml.runtime import Model
from sdbuild.models.build import build
from tests.coreml import programs
from tests.models.conftest import save_unet

SMALL = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "mid_block_type": None,
}
MODELS = {
    "original": {"attention_implementation": "ORIGINAL"},
    "split einsum, float32": {"precision": "float32"},
    "for ControlNets, iOS 18": {"controlnet_ready": True, "deployment_target": "iOS18"},
}
CASES = [
    ("original", None),
    ("original", 4),
    ("split einsum, float32", None),
    ("for ControlNets, iOS 18", None),
    ("for ControlNets, iOS 18", 6),
]


def unet(folder, *, precision="float16", deployment_target="iOS16", **options):
    checkpoint = save_unet(folder / "checkpoint", **SMALL)
    model = build("unet", checkpoint, latent_height=8, latent_width=8, text_sequence_length=7, **options)
    convert(
        model.module,
        model.inputs,
        model.outputs,
        model.weights,
        folder / "Unet.mlpackage",
        precision=precision,
        deployment_target=deployment_target,
        float32_modules=model.float32_modules,
    )
    return folder / "Unet.mlpackage"


@pytest.fixture(scope="module")
def unets(tmp_path_factory):
    return {name: unet(tmp_path_factory.mktemp("unet"), **options) for name, options in MODELS.items()}


@pytest.fixture(scope="module", params=CASES, ids=str)
def split(request, unets, tmp_path_factory):
    name, bits = request.param
    folder = tmp_path_factory.mktemp("split")
    whole = unets[name]
    if bits is not None:
        whole = folder / "Palettized.mlpackage"
        palettize(unets[name], whole, bits=bits)
    parts = folder / "First.mlpackage", folder / "Second.mlpackage"
    return whole, parts, chunk(whole, *parts)


def steps(path):
    return [
        operation
        for operation in program.main_block(Package.open(path)).operations
        if not program.is_constant(operation)
    ]


def stored(path):
    """Every stored constant's bytes, by the name of its operation and its place in it."""
    package = Package.open(path)
    return {
        (operation.outputs[0].name, number): package.weights.raw(value.blobFileValue.offset).tobytes()
        for operation in program.main_block(package).operations
        for number, value in enumerate(program.stored_values(operation))
    }


def random_inputs(model, seed=0):
    rng = np.random.default_rng(seed)
    return {
        feature.name: np.full(feature.shape, 481.0, np.float32)
        if feature.name == "timestep"
        else rng.standard_normal(feature.shape).astype(np.float32)
        for feature in model.inputs
    }


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_both_parts_together_give_the_bits_of_the_whole(split, precision):
    whole, (first, second), _ = split
    model = Model(whole, precision=precision)
    inputs = random_inputs(model)

    features = Model(first, precision=precision).predict(inputs)
    result = Model(second, precision=precision).predict(inputs | features)

    expected = model.predict(inputs)
    assert result.keys() == expected.keys()
    assert all(np.isfinite(expected[name]).all() and np.ptp(expected[name]) > 0 for name in expected)
    assert all(result[name].tobytes() == expected[name].tobytes() for name in expected)


def test_operations_are_those_of_the_whole_in_their_order(split):
    whole, (first, second), report = split
    half = sum(feature.half for feature in report.features)
    first_steps, second_steps = steps(first), steps(second)

    assert first_steps[: len(first_steps) - half] + second_steps[half:] == steps(whole)

    for casts in (first_steps[len(first_steps) - half :], second_steps[:half]):
        assert {operation.type for operation in casts} <= {"cast"}


def test_constants_are_copied_and_none_is_superfluous(split):
    whole, parts, report = split
    held, (first, second) = stored(whole), [stored(part) for part in parts]

    assert first.keys() | second.keys() == held.keys()
    assert all(data == held[key] for part in (first, second) for key, data in part.items())
    assert report.first_bytes == blob_bytes(parts[0])
    assert report.second_bytes == blob_bytes(parts[1])
    assert report.shared_bytes == report.first_bytes + report.second_bytes - blob_bytes(whole)


def blob_bytes(path):
    package = Package.open(path)
    offsets = {
        value.blobFileValue.offset
        for operation in program.main_block(package).operations
        for value in program.stored_values(operation)
    }
    return sum(package.weights.blob(offset).size for offset in offsets)


def test_stored_bytes_are_nearly_equal(split):
    whole, _, report = split
    largest = max(len(data) for data in stored(whole).values())

    assert abs(report.first_bytes - report.second_bytes) <= 2 * largest


def test_interfaces(split):
    whole, parts, report = split
    interface = Package.open(whole).spec.description
    first, second = (Package.open(part).spec.description for part in parts)
    original = {feature.name: feature for feature in interface.input}
    passed = {feature.name for feature in report.features}

    assert {feature.name for feature in first.output} == passed
    assert list(second.output) == list(interface.output)
    for feature in (*first.input, *second.input):
        assert feature.name in passed or feature == original[feature.name]
    assert {feature.name for feature in (*first.input, *second.input)} == original.keys() | passed
    assert all(feature.type.multiArrayType.dataType == 65568 for feature in first.output)  # FLOAT32
    assert "sample" in {feature.name for feature in first.input}
    assert first.metadata == second.metadata == interface.metadata


def test_compressed_constants_count_by_what_is_stored(tmp_path):
    """At one bit, the table of embeddings and the plane, which stay plain, are nearly all that there is."""
    source = programs.package(tmp_path / "source.mlpackage")
    palettize(source, tmp_path / "palettized.mlpackage", bits=1, exceptions={"plane_to_fp16": None})

    parts = tmp_path / "a.mlpackage", tmp_path / "b.mlpackage"
    chunk(tmp_path / "palettized.mlpackage", *parts)

    held = [{name for name, _ in stored(part)} for part in parts]
    assert [{"table_to_fp16", "plane_to_fp16"} & names for names in held] == [{"table_to_fp16"}, {"plane_to_fp16"}]


def test_a_program_without_a_place_to_cut(tmp_path):
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    @mb.program(input_specs=[mb.TensorSpec((1, 64))], opset_version=ct.target.iOS16)
    def single(x):
        return mb.linear(x=x, weight=np.ones((64, 64), np.float32), name="out")

    ct.convert(
        single, minimum_deployment_target=ct.target.iOS16, compute_precision=ct.precision.FLOAT32, skip_model_load=True
    ).save(str(tmp_path / "source.mlpackage"))

    with pytest.raises(ProgramError, match="cannot be split"):
        chunk(tmp_path / "source.mlpackage", tmp_path / "a.mlpackage", tmp_path / "b.mlpackage")

    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


def test_the_same_bytes_every_time(tmp_path):
    source = programs.package(tmp_path / "source.mlpackage")
    trees = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        chunk(source, folder / "a.mlpackage", folder / "b.mlpackage")
        trees.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})

    assert trees[0] == trees[1]
