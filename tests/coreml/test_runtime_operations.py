"""Each operation against coremltools' own evaluation of it, or against torch and NumPy where that has none."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import types

from sdbuild.coreml.runtime import Model
from tests.coreml.runtime_cases import Case, computing, moving, windows

CASES = [*computing.CASES, *moving.CASES, *windows.CASES]


def evaluated(case: Case, opset: Any) -> list[np.ndarray]:
    """What the case must give."""
    if case.expected is not None:
        result = case.expected(**case.fed, **case.fixed)
        return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]
    found: list[np.ndarray] = []

    @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=opset)
    def program(unused: Any) -> Any:
        results = case.build(case.fed)
        found.extend(part.val for part in (results if isinstance(results, (list, tuple)) else (results,)))
        return unused

    assert all(value is not None for value in found), f"coremltools does not evaluate {case.operation}"
    return [np.asarray(value) for value in found]


def arrays(case: Case) -> list[np.ndarray]:
    return [part for value in case.fed.values() for part in (value if isinstance(value, tuple) else (value,))]


def build_all(cases: list[Case], opset: Any) -> Any:
    """One program that computes all cases; its outputs are float32 or int32, as Core ML wants."""
    specs = [
        mb.TensorSpec(part.shape, dtype=types.int32 if part.dtype == np.int32 else types.fp32)
        for case in cases
        for part in arrays(case)
    ]

    def body(*variables: Any) -> Any:
        rest = list(variables)
        outputs = []
        for number, case in enumerate(cases):
            values: dict[str, Any] = {}
            for name, value in case.fed.items():
                values[name] = tuple(rest.pop(0) for _ in value) if isinstance(value, tuple) else rest.pop(0)
            if case.operation == "reshape_like":
                source = values["x"]
                values |= {"ref_tensors": (mb.reshape(x=source, shape=[6, 4]),), "begins": (0,), "ends": (2,)}
                values["end_masks"] = (False,)
            results = case.build(values)
            for part, result in enumerate(results if isinstance(results, (list, tuple)) else (results,)):
                wide = "fp32" if types.is_float(result.dtype) else "int32"
                outputs.append(mb.cast(x=result, dtype=wide, name=f"out_{number}_{part}"))
        return tuple(outputs)

    names = [f"x{number}" for number in range(len(specs))]
    scope: dict[str, Any] = {"body": body}
    exec(f"def program({', '.join(names)}): return body({', '.join(names)})", scope)
    return mb.program(input_specs=specs, opset_version=opset)(scope["program"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], list[np.ndarray]]:
    """All cases of all deployment targets, run: one package a target."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for target in ("iOS16", "iOS17", "iOS18"):
        chosen = [(number, case) for number, case in enumerate(CASES) if case.since <= target]
        if target != "iOS16":  # the forms that the target brought, and every fifth of the older ones
            chosen = [(number, case) for number, case in chosen if case.since == target or number % 5 == 0]
        program = build_all([case for _, case in chosen], ct.target[target])
        model = ct.convert(
            program,
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        path = tmp_path_factory.mktemp(target) / "all.mlpackage"
        model.save(str(path))
        inputs = [part for _, case in chosen for part in arrays(case)]
        before = [part.copy() for part in inputs]
        for precision in ("fp32", "fp16"):
            outputs = Model(path, precision).predict({f"x{n}": value for n, value in enumerate(inputs)})
            for position, (number, _) in enumerate(chosen):
                parts = [value for name, value in outputs.items() if name.startswith(f"out_{position}_")]
                found.setdefault((target + precision, number), parts)
        assert all(np.array_equal(a, b) for a, b in zip(before, inputs, strict=True)), "an input was changed"
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n}-{case.operation}" for n, case in enumerate(CASES)])
def test_operation_gives_what_its_definition_says(
    number: int, results: dict[tuple[str, int], list[np.ndarray]]
) -> None:
    case = CASES[number]
    opset = ct.target[case.since]
    expected = evaluated(case, opset)
    computed = {key[0]: value for key, value in results.items() if key[1] == number}
    assert computed
    for where, values in computed.items():
        assert len(values) == len(expected), where
        for got, wanted in zip(values, expected, strict=True):
            assert got.shape == wanted.shape, where
            np.testing.assert_allclose(got, wanted.astype(got.dtype), rtol=2e-5, atol=2e-6, err_msg=where)
