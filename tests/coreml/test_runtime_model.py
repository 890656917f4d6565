"""Loading packages of every form, checking inputs as Core ML does, watching a run."""

from __future__ import annotations

import gc
import platform
import shutil
import weakref
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import types
from coremltools.models.datatypes import Array

from sdbuild.coreml.package import Package, write_package
from sdbuild.coreml.runtime import Audit, Model, RuntimeModelError

RNG = np.random.default_rng(3)
WEIGHT = RNG.standard_normal((5, 4)).astype(np.float32)
X = RNG.standard_normal((2, 4)).astype(np.float32)
IDS = np.array([1, 0], np.int32)


def save(program: Any, path: Path, target: str = "iOS16", precision: str = "FLOAT32", **options: Any) -> Path:
    ct.convert(
        program,
        minimum_deployment_target=ct.target[target],
        compute_precision=ct.precision[precision],
        skip_model_load=True,
        **options,
    ).save(str(path))
    return path


def linear_program(target: str = "iOS16", scale: float = 1.0) -> Any:
    @mb.program(
        input_specs=[mb.TensorSpec((2, 4)), mb.TensorSpec((2,), dtype=types.int32)], opset_version=ct.target[target]
    )
    def program(x: Any, ids: Any) -> Any:
        product = mb.linear(x=mb.mul(x=x, y=np.float32(scale)), weight=WEIGHT)
        return mb.add(x=product, y=mb.expand_dims(x=mb.cast(x=ids, dtype="fp32"), axes=[1]), name="y")

    return program


def changed(source: Path, out: Path, change: Any) -> Path:
    """A copy of a package with another specification."""
    spec = Package.open(source).spec
    change(spec)
    shutil.copytree(source, out)
    (out / "Data/com.apple.CoreML/model.mlmodel").write_bytes(spec.SerializeToString())
    return out


def expected(scale: float = 1.0) -> np.ndarray:
    return X * np.float32(scale) @ WEIGHT.T + IDS[:, None]


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(linear_program(), tmp_path_factory.mktemp("linear") / "linear.mlpackage")


@pytest.mark.parametrize(("target", "version"), [("iOS16", 7), ("iOS17", 8), ("iOS18", 9)])
def test_every_specification_version_runs(target: str, version: int, tmp_path: Path) -> None:
    model = Model(save(linear_program(target), tmp_path / "m.mlpackage", target))
    assert Package.open(model.path).spec.specificationVersion == version
    np.testing.assert_allclose(model.predict({"x": X, "ids": IDS})["y"], expected(), rtol=1e-5)


def test_description_is_the_packages_own(linear: Path) -> None:
    model = Model(linear)
    assert [(f.name, f.shape, f.dtype) for f in model.inputs] == [("x", (2, 4), "float32"), ("ids", (2,), "int32")]
    assert [f.name for f in model.outputs] == ["y"]
    assert model.operations["linear"] == 1


def test_other_number_types_are_converted_and_unknown_features_ignored(linear: Path) -> None:
    model = Model(linear)
    given = {"x": X.astype(np.float64), "ids": IDS.astype(np.float32), "additional": X}
    np.testing.assert_allclose(model.predict(given)["y"], expected(), rtol=1e-5)
    transposed = {"x": np.asfortranarray(X), "ids": IDS.astype(np.int64)}
    np.testing.assert_allclose(model.predict(transposed)["y"], expected(), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ids": IDS}, "linear.mlpackage needs the input x, which is missing"),
        ({"X": X, "ids": IDS}, "needs the input x, which is missing; given but unknown: X"),
        ({"x": X[None], "ids": IDS}, r"the input x has the shape \(1, 2, 4\), expected \(2, 4\)"),
        ({"x": X.astype(bool), "ids": IDS}, "the input x has the type bool, which does not convert to float32"),
        ({"x": X.astype("U8"), "ids": IDS}, "does not convert to float32"),
        ({"x": X.tolist(), "ids": IDS}, "the input x is a list, not a NumPy array"),
        ({"x": X, "ids": np.array([1.0, np.nan])}, "the input ids holds values that int32 cannot hold"),
        ({"x": X, "ids": np.array([1, 2**40])}, "the input ids holds values that int32 cannot hold"),
    ],
)
def test_inputs_are_refused_with_a_reason(given: dict[str, Any], message: str, linear: Path) -> None:
    with pytest.raises(RuntimeModelError, match=message):
        Model(linear).predict(given)


def test_flexible_shapes_are_checked(tmp_path: Path) -> None:
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).reshape(x.shape[0], -1)

    traced = torch.jit.trace(Double(), torch.zeros(1, 4))
    forms = {
        "listed": (ct.EnumeratedShapes([(1, 4), (1, 8)]), r"expected one of \(1, 4\), \(1, 8\)"),
        "range": (ct.Shape((1, ct.RangeDim(4, 8, default=4))), r"expected \(1, 4…8\)"),
    }
    for name, (shape, message) in forms.items():
        path = save(traced, tmp_path / f"{name}.mlpackage", inputs=[ct.TensorType("x", shape=shape)])
        model = Model(path)
        for size in (4, 8):
            x = np.ones((1, size), np.float32)
            assert np.array_equal(model.predict({"x": x})[model.outputs[0].name], 2 * x)
        with pytest.raises(RuntimeModelError, match=message):
            model.predict({"x": np.ones((1, 9), np.float32)})


def test_optional_inputs_take_their_default(linear: Path, tmp_path: Path) -> None:
    def change(spec: Any) -> None:
        spec.description.input[1].type.isOptional = True
        spec.description.input[1].type.multiArrayType.intDefaultValue = 3

    model = Model(changed(linear, tmp_path / "optional.mlpackage", change))
    np.testing.assert_allclose(model.predict({"x": X})["y"], X @ WEIGHT.T + 3, rtol=1e-5)


def test_functions_are_chosen_by_name(tmp_path: Path) -> None:
    descriptor = ct.utils.MultiFunctionDescriptor()
    for scale in (1.0, 2.0):
        path = save(linear_program("iOS18", scale), tmp_path / f"{scale}.mlpackage", "iOS18")
        descriptor.add_function(str(path), "main", f"times_{int(scale)}")
    descriptor.default_function_name = "times_2"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    inputs = {"x": X, "ids": IDS}
    for function, scale in ((None, 2.0), ("times_1", 1.0), ("times_2", 2.0)):
        model = Model(tmp_path / "both.mlpackage", function=function)
        np.testing.assert_allclose(model.predict(inputs)["y"], expected(scale), rtol=1e-5)
    with pytest.raises(RuntimeModelError, match=r"has no function third; it has times_1, times_2"):
        Model(tmp_path / "both.mlpackage", function="third")


def test_the_only_function_is_main(linear: Path) -> None:
    assert Model(linear, function="main").inputs
    with pytest.raises(RuntimeModelError, match="has no function other"):
        Model(linear, function="other")


def test_pipelines_hand_results_on(tmp_path: Path) -> None:
    first, second = RNG.standard_normal((2, 64, 64)).astype(np.float32)

    def program(weight: np.ndarray, name: str) -> Any:
        @mb.program(input_specs=[mb.TensorSpec((1, 64))], opset_version=ct.target.iOS16)
        def stage(x: Any) -> Any:
            return mb.linear(x=x, weight=weight, name=name)

        return stage

    models = []
    for weight, source, name in ((first, "x", "hidden"), (second, "hidden", "y")):
        path = save(program(weight, name), tmp_path / f"{name}.mlpackage")
        spec = Package.open(path).spec
        ct.utils.rename_feature(spec, "x", source)
        models.append(
            ct.models.MLModel(spec, weights_dir=str(path / "Data/com.apple.CoreML/weights"), skip_model_load=True)
        )
    ct.utils.make_pipeline(*models).save(str(tmp_path / "pipeline.mlpackage"))
    x = RNG.standard_normal((1, 64)).astype(np.float32)
    model = Model(tmp_path / "pipeline.mlpackage")
    assert model.operations == {"linear": 2}
    np.testing.assert_allclose(model.predict({"x": x})["y"], x @ first.T @ second.T, rtol=1e-4, atol=1e-4)


def test_half_precision_rounds_each_result_and_full_precision_none(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec((3,), dtype=types.fp16)], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        grown = mb.mul(x=x, y=np.float16(3.0), name="grown")
        return mb.cast(x=mb.sub(x=grown, y=x, name="difference"), dtype="fp32", name="y")

    path = save(program, tmp_path / "m.mlpackage", pass_pipeline=ct.PassPipeline.EMPTY)
    x = np.array([0.1, 1000.3, 30000.0], np.float32)
    assert np.array_equal(Model(path, "fp32").predict({"x": x})["y"], x * np.float32(3) - x)
    half = x.astype(np.float16)
    with np.errstate(over="ignore"):
        rounded = (half * np.float16(3) - half).astype(np.float32)
    assert np.array_equal(Model(path, "fp16").predict({"x": x})["y"], rounded)
    assert np.isinf(rounded[2])


def test_half_outputs_keep_their_type_in_half_precision_alone(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec((3,), dtype=types.fp16)], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        return mb.square(x=x, name="y")

    path = save(program, tmp_path / "m.mlpackage", outputs=[ct.TensorType("y", dtype=np.float16)], precision="FLOAT16")
    x = np.array([0.1, 0.2, 0.3], np.float16)
    assert Model(path, "fp16").predict({"x": x})["y"].dtype == np.float16
    full = Model(path, "fp32").predict({"x": x})["y"]
    assert full.dtype == np.float32
    assert np.array_equal(full, x.astype(np.float32) ** 2)


def overflowing(tmp_path: Path) -> Path:
    @mb.program(input_specs=[mb.TensorSpec((4,), dtype=types.fp16)], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        squares = mb.square(x=x, name="squares")
        ratio = mb.real_div(x=squares, y=squares, name="ratio")
        wide = mb.cast(x=x, dtype="fp32", name="wide")
        return mb.add(x=mb.cast(x=ratio, dtype="fp32"), y=mb.square(x=wide, name="wide_squares"), name="y")

    return save(program, tmp_path / "m.mlpackage", pass_pipeline=ct.PassPipeline.EMPTY)


def test_audit_finds_overflows_and_nans(tmp_path: Path) -> None:
    model = Model(overflowing(tmp_path), "fp16")
    x = {"x": np.array([1.0, 300.0, -2.0, 256.0], np.float16)}
    audit = Audit()
    output = model.predict(x, audit=audit)["y"]
    assert np.isnan(output[[1, 3]]).all()
    squares = audit.operations["squares"]
    assert (squares.operation, squares.element, squares.largest, squares.overflows) == ("square", "fp16", 90000.0, 2)
    assert audit.operations["ratio"].nans == 2
    assert audit.operations["ratio"].largest == 1.0
    assert audit.operations["wide_squares"].overflows == 0
    assert [entry.name for entry in audit.faults()][:2] == ["squares", "ratio"]
    model.predict(x, audit=audit)
    assert audit.operations["squares"].overflows == audit.overflows == 4
    assert audit.operations["squares"].elements == 8
    assert audit.nans >= 4


def test_audit_in_full_precision_counts_what_half_could_not_hold(tmp_path: Path) -> None:
    audit = Audit()
    output = Model(overflowing(tmp_path), "fp32").predict({"x": np.array([300.0, 1, 1, 1], np.float32)}, audit=audit)
    assert np.isfinite(output["y"]).all()
    assert (audit.overflows, audit.nans) == (1, 0)


def test_observer_sees_each_operation_under_its_name(linear: Path) -> None:
    seen: list[tuple[str, str, tuple[int, ...]]] = []
    Model(linear).predict(
        {"x": X, "ids": IDS}, observe=lambda name, kind, value: seen.append((name, kind, value.shape))
    )
    assert {kind for _, kind, _ in seen} == {"linear", "cast", "expand_dims", "add"}
    assert seen[-1] == ("y", "add", (2, 5))


def test_results_are_dropped_after_their_last_use(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec((64, 64))], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        for index in range(8):
            x = mb.sin(x=mb.exp(x=mb.cos(x=x)), name=f"stage_{index}")
        return x

    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def observe(name: str, operation: str, value: torch.Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(value))
        most = max(most, sum(reference() is not None for reference in alive))

    path = save(program, tmp_path / "m.mlpackage")
    Model(path).predict({"x": np.ones((64, 64), np.float32)}, observe=observe)
    gc.collect()
    assert len(alive) == 24
    assert most <= 2
    assert all(reference() is None for reference in alive)


def test_weights_are_mapped_not_copied(tmp_path: Path) -> None:
    weight = RNG.standard_normal((512, 512)).astype(np.float16)

    @mb.program(input_specs=[mb.TensorSpec((1, 512), dtype=types.fp16)], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        return mb.linear(x=x, weight=weight, bias=np.zeros(512, np.float16), name="y")

    model = Model(save(program, tmp_path / "m.mlpackage", precision="FLOAT16"))
    file = next(iter(model._weight_files.values()))
    start = np.frombuffer(file._map, np.uint8).ctypes.data
    addresses = [
        source.stored().data_ptr()
        for program_ in model._programs
        for step in program_._steps
        for argument in step.arguments
        for source in argument.sources
        if not isinstance(source, int) and argument.name == "weight"
    ]
    assert addresses
    assert all(start <= address < start + len(file._map) for address in addresses)


def block_of(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def test_unknown_operations_are_all_named_when_the_model_is_loaded(linear: Path, tmp_path: Path) -> None:
    def change(spec: Any) -> None:
        for operation in block_of(spec).operations:
            if operation.type in ("linear", "add"):
                operation.type = f"quantum_{operation.type}"

    path = changed(linear, tmp_path / "m.mlpackage", change)
    with pytest.raises(RuntimeModelError, match=r"quantum_add \(first: y\), quantum_linear \(first: "):
        Model(path)


def test_unknown_inputs_and_versions_are_refused(linear: Path, tmp_path: Path) -> None:
    def unknown_input(spec: Any) -> None:
        operation = next(item for item in block_of(spec).operations if item.type == "linear")
        operation.inputs["flavour"].CopyFrom(operation.inputs["x"])

    with pytest.raises(RuntimeModelError, match="has an input flavour, which this runtime does not know"):
        Model(changed(linear, tmp_path / "input.mlpackage", unknown_input))

    def version(spec: Any) -> None:
        spec.specificationVersion = 6

    with pytest.raises(RuntimeModelError, match=r"specification version 6; this runtime knows 7 \(iOS 16\)"):
        Model(changed(linear, tmp_path / "version.mlpackage", version))

    def shape(spec: Any) -> None:
        block_of(spec).operations[-1].outputs[0].type.tensorType.dimensions[1].constant.size = 6

    with pytest.raises(RuntimeModelError, match=r"add y gives the shape \(2, 5\), but the program declares"):
        Model(changed(linear, tmp_path / "shape.mlpackage", shape)).predict({"x": X, "ids": IDS})


def test_failing_operations_are_named(tmp_path: Path) -> None:
    @mb.program(
        input_specs=[mb.TensorSpec((3, 2)), mb.TensorSpec((2,), dtype=types.int32)], opset_version=ct.target.iOS17
    )
    def program(x: Any, ids: Any) -> Any:
        return mb.gather(x=x, indices=ids, axis=0, validate_indices=True, name="picked")

    model = Model(save(program, tmp_path / "m.mlpackage", "iOS17", pass_pipeline=ct.PassPipeline.EMPTY))
    x = np.zeros((3, 2), np.float32)
    for ids in ([0, 3], [0, -1]):
        with pytest.raises(RuntimeModelError, match="gather picked: an index lies outside of the data"):
            model.predict({"x": x, "ids": np.array(ids, np.int32)})


def test_what_is_no_ml_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeModelError, match="is not a Core ML package"):
        Model(tmp_path / "missing.mlpackage")
    builder = ct.models.neural_network.NeuralNetworkBuilder([("x", Array(2))], [("y", Array(2))])
    builder.add_activation("relu", "RELU", "x", "y")
    write_package(tmp_path / "network.mlpackage", builder.spec, None)
    with pytest.raises(RuntimeModelError, match="is a neuralNetwork; this runtime runs ML Programs"):
        Model(tmp_path / "network.mlpackage")


def test_choices_are_checked(linear: Path) -> None:
    with pytest.raises(RuntimeModelError, match="there is no precision 'bf16'"):
        Model(linear, "bf16")  # type: ignore[arg-type]
    with pytest.raises(RuntimeModelError, match="there is no backend 'mlx'"):
        Model(linear, backend="mlx")  # type: ignore[arg-type]


@pytest.mark.skipif(platform.system() == "Darwin", reason="Core ML is there")
def test_core_ml_is_refused_where_it_is_not(linear: Path) -> None:
    with pytest.raises(RuntimeModelError, match="the coreml backend needs macOS"):
        Model(linear, backend="coreml")


@pytest.mark.mac
@pytest.mark.skipif(platform.system() != "Darwin", reason="needs macOS with Core ML")
def test_core_ml_agrees(linear: Path) -> None:
    model = Model(linear, backend="coreml", compute_unit="CPU_ONLY")
    inputs = {"x": X, "ids": IDS}
    np.testing.assert_allclose(model.predict(inputs)["y"], Model(linear).predict(inputs)["y"], rtol=1e-3)
    with pytest.raises(RuntimeModelError, match="need the torch backend"):
        model.predict(inputs, audit=Audit())
