"""The stock coremltools conversion, made to run on deferred constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch._subclasses.fake_tensor import FakeTensor

from sdbuild.coreml.lowering import deferred, half, passes, shortcuts
from sdbuild.coreml.lowering.deferred import DeferredArray
from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.coreml.lowering.lazily import imported_lazily
from sdbuild.coreml.lowering.operators import register_missing_operators
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
    from coremltools.converters.mil import converter as mil_converter
    from coremltools.converters.mil.frontend.torch.load import load
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipeline

    register_missing_operators()
    target = ct.target[deployment_target]
    is_half = precision == "float16"
    main = PassPipeline()
    if not is_half:
        main.remove_passes({"common::add_fp16_cast", "common::add_int16_cast"})
    elif keep_float32 is not None:
        selector = PassOption(option_name="op_selector", option_val=lambda op: not keep_float32(op))
        main._pass_options["common::add_fp16_cast"] = [selector]
    before, after = mil_converter._construct_other_pipelines(main, "pytorch", "mlprogram")

    mil_converter._reset_conversion_state()
    deferred.readings.clear()
    with _on_deferred_constants(exported, weights):
        program = load(
            exported,
            inputs=[ct.TensorType(name=spec.name, shape=spec.shape, dtype=_dtype(spec, is_half)) for spec in inputs],
            outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in outputs],
            specification_version=target.value,
            use_default_fp16_io=is_half,
        )
        for pipeline in (before, main, after):
            passes.run(program, pipeline)
        program._check_early_error_out_for_invalid_program()
    mil_converter._reset_conversion_state()
    return program


def _dtype(spec: TensorSpec, is_half: bool) -> Any:
    return np.dtype("float32" if spec.dtype == "float16" and not is_half else spec.dtype).type


@contextmanager
def _on_deferred_constants(exported: Any, weights: Mapping[str, Weight]) -> Iterator[None]:
    """Replace, for the time of one conversion, the functions of coremltools that would read real constants."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch.converter import TorchConverter
    from coremltools.converters.mil.mil.passes.defs.quantization import (
        AbstractQuantizationPass,
        FP16ComputePrecision,
    )

    signature = exported.graph_signature
    sources = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    add_real_constant = TorchConverter._add_const
    overflows = FP16ComputePrecision.fp16_overflow

    def add_constant(converter: Any, name: str, value: Any) -> None:
        weight = weights.get(sources.get(name, ""))
        if weight is None:
            if isinstance(value, FakeTensor) or value.is_meta:
                raise ConversionError(
                    f"{sources.get(name, name)} has no values: it was on the meta device and no weight has that name"
                )
            add_real_constant(converter, name, value)
            return
        if tuple(weight.shape) != tuple(value.shape):
            raise ConversionError(
                f"{weight.name}: the stored shape {tuple(weight.shape)} is not the module's {tuple(value.shape)}"
            )
        floating = value.dtype.is_floating_point
        constant = DeferredArray.of(weight) if floating else np.asarray(weight.read())
        converter.context.add(Builder.const(val=constant, name=name))

    def fp16_overflow(op: Any) -> bool:
        """Leave weights out: their range is checked when they are written, where an overflow is an error."""
        if any(_is_deferred_constant(var) for var in op.get_flattened_inputs()):
            rest = [var for var in op.get_flattened_inputs() if not _is_deferred_constant(var)]
            return bool(overflows(_Inputs({str(index): var for index, var in enumerate(rest)})))
        return bool(overflows(op))

    with ExitStack() as stack:
        stack.enter_context(passes.without_needless_work())
        stack.enter_context(shortcuts.in_force())
        stack.enter_context(deferred.numpy_constructors_keep_deferred_arrays())
        stack.enter_context(passes.replaced(TorchConverter, "_add_const", add_constant))
        stack.enter_context(passes.replaced(FP16ComputePrecision, "fp16_overflow", staticmethod(fp16_overflow)))
        halving = half.in_place(AbstractQuantizationPass.apply)
        stack.enter_context(passes.replaced(AbstractQuantizationPass, "apply", halving))
        yield


class _Inputs:
    def __init__(self, inputs: dict[str, Any]) -> None:
        self.inputs = inputs


def _is_deferred_constant(var: Any) -> bool:
    return var.op is not None and var.op.op_type == "const" and isinstance(var.op.val.val, DeferredArray)
