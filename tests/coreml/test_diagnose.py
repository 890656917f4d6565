"""Diagnosis: a program in float32 and float16, result by result."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdbuild.coreml.diagnose import EQUAL_DB, output_signals, walk, worst
from sdbuild.coreml.runtime import RuntimeModelError

SHAPE = (1, 8)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x² overflows half precision, |x| keeps every bit, 1 + x/1000 − 1 loses most."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    @mb.program(input_specs=[mb.TensorSpec(shape=SHAPE)], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        kept = mb.abs(x=x, name="kept")
        almost_nothing = mb.mul(x=mb.sub(x=mb.add(x=x, y=np.float32(64)), y=np.float32(64)), y=np.float32(1e-4))
        kept_well = mb.add(x=kept, y=almost_nothing, name="kept_well")
        squared = mb.mul(x=kept, y=kept, name="squared")
        small = mb.mul(x=x, y=np.float32(0.001), name="small")
        shifted = mb.add(x=small, y=np.float32(1), name="shifted")
        back = mb.sub(x=shifted, y=np.float32(1), name="back")
        return squared, back, kept_well, mb.cast(x=x, dtype="int32", name="whole")

    path = tmp_path_factory.mktemp("diagnose") / "Steps.mlpackage"
    model = ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )
    model.save(str(path))
    return path


MODULES = {"squared": "blocks.0.norm", "back": "blocks.1"}


def signals(package: Path, largest: float) -> dict[str, Any]:
    values = np.linspace(-largest, largest, 8, dtype=np.float32).reshape(SHAPE).astype(np.float16).astype(np.float32)
    modules = {f"{name}_cast_fp16": module for name, module in MODULES.items()}
    found = walk(package, {"x": values}, modules)
    # The program's outputs are cast back to float32; here the half-precision results are looked at.
    return {entry.name.removesuffix("_cast_fp16"): entry for entry in found if entry.name.endswith("_cast_fp16")}


def test_each_result_has_its_figures_and_its_module(package: Path) -> None:
    found = signals(package, 3.0)
    assert found["kept"].psnr_db == EQUAL_DB
    assert (found["kept"].operation, found["kept"].module) == ("abs", "")
    assert found["squared"].module == "blocks.0.norm"
    assert found["squared"].largest == pytest.approx(9.0, rel=1e-3)
    assert found["squared"].overflows == 0
    assert not [name for name in found if "whole" in name], "whole numbers have no signal to lose"


def test_the_loss_is_put_where_it_arises(package: Path) -> None:
    found = signals(package, 3.0)
    assert found["small"].psnr_db > 65
    assert found["small"].lost_db < 15, "what one rounding costs"
    assert found["back"].psnr_db < 30
    assert found["back"].lost_db > 40, "cancellation shows in the subtraction"
    assert worst(list(found.values()), 1) == [found["back"]]


def test_a_worn_result_that_nobody_feels_is_no_loss(package: Path) -> None:
    found = signals(package, 3.0)
    worn = next(entry for entry in found.values() if entry.operation == "sub" and entry.name != found["back"].name)
    assert worn.psnr_db < 50
    assert worn.lost_db < 5
    assert found["kept_well"].psnr_db > 70


def test_overflows_come_first(package: Path) -> None:
    found = signals(package, 300.0)
    assert found["squared"].overflows == 2
    assert found["squared"].psnr_db == -EQUAL_DB
    first, second = worst(list(found.values()), 2)
    assert first.overflows >= second.overflows
    assert first.name.startswith("squared")
    assert len(worst(list(found.values()), 100)) == len(found)


def test_figures_of_the_outputs(package: Path) -> None:
    import coremltools as ct

    found = walk(package, {"x": np.ones(SHAPE, np.float32)}, {})
    names = {
        output.name for output in ct.models.MLModel(str(package), skip_model_load=True).get_spec().description.output
    }
    assert set(output_signals(package, found)) == names - {"whole"}


def test_wrong_inputs_end_both_runs(package: Path) -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeModelError, match="needs the input x"):
        walk(package, {}, {})
    assert threading.active_count() == before
