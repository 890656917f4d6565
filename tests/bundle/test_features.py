"""Interfaces are read from packages and compiled models without Core ML or coremltools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.features import Feature, read_interface
from sdbuild.bundle.wire import WireError, fields, integers
from tests.bundle.bundles import SD, Model, gives, takes, write_compiled, write_package

FEATURES = (
    Feature("sample", (2, 4, 16, 12), "float16", "about sample"),
    Feature("timestep", (2,), "float16", "about timestep"),
    Feature("encoder_hidden_states", (2, 64, 1, 77), "float16", "about encoder_hidden_states"),
)


@pytest.mark.parametrize("write", [write_package, write_compiled])
def test_both_forms_tell_the_same(tmp_path: Path, write: object) -> None:
    path = tmp_path / ("Unet.mlpackage" if write is write_package else "Unet.mlmodelc")
    assert callable(write)
    write(path, SD["Unet"])
    interface = read_interface(path)
    assert interface.inputs == FEATURES
    assert [str(feature) for feature in interface.outputs] == ["noise_pred float32 [2, 4, 16, 12]"]
    assert (interface.specification_version, interface.author, interface.license) == (7, "somebody", "mit")


def test_the_default_function_counts(tmp_path: Path) -> None:
    write_package(tmp_path / "Unet.mlpackage", SD["Unet"], functions=True)
    assert read_interface(tmp_path / "Unet.mlpackage").inputs == FEATURES


def test_what_coremltools_saves_is_read(tmp_path: Path) -> None:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1, 2, 3), dtype=types.fp16), mb.TensorSpec(shape=(1,), dtype=types.int32)],
        opset_version=ct.target.iOS16,
    )
    def program(x, ids):  # type: ignore[no-untyped-def]
        return mb.add(x=x, y=mb.cast(x=ids, dtype="fp16"), name="total")

    model = ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS16,
        compute_units=ct.ComputeUnit.CPU_ONLY,
        skip_model_load=True,
    )
    model.license, model.author, model.version = "mit", "somebody", "1"
    model.save(str(tmp_path / "M.mlpackage"))
    interface = read_interface(tmp_path / "M.mlpackage")
    spec = model.get_spec().description
    assert [feature.name for feature in interface.inputs] == [feature.name for feature in spec.input]
    assert [feature.shape for feature in interface.inputs] == [(1, 2, 3), (1,)]
    assert [feature.dtype for feature in interface.inputs] == ["float16", "int32"]
    assert interface.outputs[0].name == "total"
    assert (interface.author, interface.license, interface.version) == ("somebody", "mit", "1")


def test_broken_models_are_errors_with_a_path(tmp_path: Path) -> None:
    path = tmp_path / "Unet.mlpackage"
    path.mkdir()
    with pytest.raises(BundleError, match=r"Manifest.json is missing; the model is incomplete"):
        read_interface(path)
    (path / "Manifest.json").write_text("{}")
    with pytest.raises(BundleError, match=r"Unet.mlpackage: cannot be read .KeyError"):
        read_interface(path)
    compiled = tmp_path / "Unet.mlmodelc"
    write_compiled(compiled, Model(takes(x=(1,)), gives(y=(1,))))
    (compiled / "metadata.json").write_text("[]")
    with pytest.raises(BundleError, match="cannot be read"):
        read_interface(compiled)


def test_the_wire_format() -> None:
    # The examples of the encoding's specification: 150 is 96 01; a packed list 3, 270, 86942; -1 has ten bytes.
    assert list(fields(memoryview(b"\x08\x96\x01"))) == [(1, 150)]
    ((number, packed),) = fields(memoryview(b"\x22\x06\x03\x8e\x02\x9e\xa7\x05"))
    assert (number, integers(packed)) == (4, (3, 270, 86942))
    assert integers((1 << 64) - 1) == (-1,)
    assert [number for number, _ in fields(memoryview(b"\x09" + bytes(8) + b"\x15" + bytes(4)))] == [1, 2]
    for broken in (b"\x08", b"\x22\x06\x03", b"\x0b", b"\x08" + b"\xff" * 11):
        with pytest.raises(WireError):
            list(fields(memoryview(broken)))


def test_linting_imports_nothing_heavy() -> None:
    program = (
        "import sys, sdbuild.bundle.linter, sdbuild.stages.bundle, sdbuild.stages.source, sdbuild.stages.compile\n"
        "heavy = ('torch', 'coremltools', 'diffusers', 'transformers', 'huggingface_hub')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
