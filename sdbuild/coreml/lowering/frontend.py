"""The stock coremltools conversion, made to run on deferred constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sdbuild.coreml.lowering import deferred
from sdbuild.coreml.lowering.lazily import imported_lazily
from sdbuild.coreml.lowering.patches import constants, pass_runner, steps, while_lowering
from sdbuild.tensors import TensorSpec, Weight


def lower(
    exported: Any,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weights: Mapping[str, Weight],
    *,
    precision: str,
    deployment_target: str,
    keep_float32: Callable[[Any], bool] | None,
) -> Any:
    """Run coremltools' torch frontend and its passes.

    Returns:
        The optimised `Program`; its large constants are deferred arrays.
    """
    with imported_lazily("coremltools.optimize.torch"):  # a third of the import's time
        import coremltools as ct
    from coremltools.converters.mil.frontend.torch.load import load
    from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipeline, PassPipelineManager

    target = ct.target[deployment_target]
    is_half = precision == "float16"
    main = PassPipeline()
    if not is_half:
        main.remove_passes({"common::add_fp16_cast", "common::add_int16_cast"})
    elif keep_float32 is not None:
        main.set_options("common::add_fp16_cast", {"op_selector": lambda op: not keep_float32(op)})

    deferred.readings.clear()
    with (
        steps.PATCH.applied(main) as pipelines,
        constants.PATCH.applied(exported, weights),
        pass_runner.PATCH.applied() as run,
        while_lowering(),
    ):
        program = load(
            exported,
            inputs=[ct.TensorType(name=spec.name, shape=spec.shape, dtype=_dtype(spec, is_half)) for spec in inputs],
            outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in outputs],
            specification_version=target.value,
            use_default_fp16_io=is_half,
        )
        for pipeline in pipelines:
            (run or PassPipelineManager.apply_pipeline)(program, pipeline)
        program._check_early_error_out_for_invalid_program()
    return program


def _dtype(spec: TensorSpec, is_half: bool) -> Any:
    return np.dtype("float32" if spec.dtype == "float16" and not is_half else spec.dtype).type
