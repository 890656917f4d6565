"""Give a program half precision in place, with the result of coremltools' pass `add_fp16_cast` and of what follows it.

That pass puts a new operation in the place of each, between casts of all that it takes and gives; the passes after it
fold the casts of constants and cancel those that meet. Here each operation stays, takes halves and is renamed; a cast
is made only where float32 and float16 really meet. Which operations and parameters become half, and what becomes of
numbers that half precision would round to zero, is asked of the pass itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known

_WIDE, _HALF = "fp32", "fp16"


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.passes.defs.quantization import AbstractQuantizationPass

    with replaced(AbstractQuantizationPass, "apply", in_place(AbstractQuantizationPass.apply)):
        yield


def in_place(apply: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """`AbstractQuantizationPass.apply`, but that `add_fp16_cast` works in place.

    Functions that this module does not know how to treat go the pass's own way, which is slower.
    """
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

    def apply_to(quantization: Any, program: Any) -> None:
        functions = list(program.functions.values())
        known = isinstance(quantization, FP16ComputePrecision) and all(map(is_plain, functions))
        if not known or (quantization.op_selector is not None and _skipped(quantization)):
            apply(quantization, program)
            return
        for function in functions:
            with function:
                _Halving(quantization, function).run()

    return apply_to


def is_plain(function: Any) -> bool:
    """Whether a function has no nested blocks, and no results that are known, or could be, without being constants."""
    return not any(op.blocks or _is_foldable(op) for op in function.operations if op.op_type != "const")


def _is_foldable(op: Any) -> bool:
    given = op.get_flattened_inputs()
    constant = bool(given) and all(one.op is not None and one.op.op_type == "const" for one in given)
    return constant or any(output.sym_val is not None for output in op.outputs)


def _skipped(quantization: Any) -> set[str]:
    """The kinds of operations that an option of the pass leaves out."""
    return getattr(quantization, "skip_ops_by_type", set())


class _Halving:
    """One function's change to half precision."""

    def __init__(self, quantization: Any, function: Any) -> None:
        self._quantization = quantization
        operations = list(function.operations)
        self._following = dict(pairwise(operations))
        self._castable: dict[tuple[type, str], bool] = {}
        chosen = filter(self._is_chosen, operations)
        self._halved = {op: parameters for op in chosen if (parameters := self._parameters_to_halve(op))}
        self._halves: dict[Any, Any] = {}

    def run(self) -> None:
        """Change every operation that is to compute with halves."""
        for op, parameters in self._halved.items():
            self._take_halves(op, parameters)
            wide = [output for output in op.outputs if _is_wide(output)]
            op.type_value_inference(overwrite_output=True)
            op.name = f"{op.name}_cast_{_HALF}"
            for output, name in zip(op.outputs, _output_names(op), strict=True):
                if output in wide and not _is_wide(output):
                    self._widen_for_others(output, f"{name}_to_{_WIDE}")
                if not output.consuming_blocks:  # a result of the program keeps its name
                    output.name = name

    def _is_chosen(self, op: Any) -> bool:
        if op.op_type == "const" or not self._quantization.is_valid_op(op):
            return False
        selector = self._quantization.op_selector
        return selector(op) if selector is not None else op.op_type not in _skipped(self._quantization)

    def _parameters_to_halve(self, op: Any) -> list[str]:
        """The parameters that become half. Whether one may is a matter of the operation's kind."""
        wide = [name for name, given in op.inputs.items() if any(map(_is_wide, _variables(given)))]
        for name in wide:
            if (type(op), name) not in self._castable:
                self._castable[type(op), name] = self._quantization.should_cast_parameter(op, name)
        return [name for name in wide if self._castable[type(op), name]]

    def _take_halves(self, op: Any, parameters: list[str]) -> None:
        halves: dict[str, Any] = {}
        for parameter in parameters:
            given = op.inputs[parameter]
            several = [self._half(variable, op) if _is_wide(variable) else variable for variable in _variables(given)]
            halves[parameter] = several if isinstance(given, list | tuple) else several[0]
        op.set_inputs(no_check_var_types=True, **halves)

    def _half(self, variable: Any, op: Any) -> Any:
        """A float32 variable as half: a constant of its own, or a cast, before the first operation that wants it."""
        from coremltools.converters.mil.mil import Builder

        if variable not in self._halves:
            name = f"{variable.name}_to_{_HALF}"
            if variable.val is None:
                half = Builder.cast(x=variable, dtype=_HALF, name=name, before_op=op)
            else:
                half = Builder.const(val=self._rounded(variable), name=name, before_op=op)
            _copy_module(op.outputs[0], half)
            self._halves[variable] = half
        return self._halves[variable]

    def _rounded(self, constant: Any) -> Any:
        from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

        half = _Value(SSAOpRegistry._get_core_op_cls("cast").get_cast_value(constant, _HALF))
        self._quantization._check_underflow_to_zero(half, constant)
        return half.val

    def _widen_for_others(self, output: Any, name: str) -> None:
        """Give a result that has become half back in float32 to those that still want that."""
        from coremltools.converters.mil.mil import Builder

        others = [
            (op, parameter, given)
            for op in dict.fromkeys(output.child_ops)
            for parameter, given in op.inputs.items()
            if parameter not in self._halved.get(op, ()) and any(one is output for one in _variables(given))
        ]
        if not others and not output.consuming_blocks:
            return
        wide = Builder.cast(x=output, dtype=_WIDE, name=name, before_op=self._following.get(output.op))
        _copy_module(output, wide)
        for op, parameter, given in others:
            several = [wide if one is output else one for one in _variables(given)]
            taken = several if isinstance(given, list | tuple) else several[0]
            op.set_inputs(no_check_var_types=True, **{parameter: taken})
        for block in list(output.consuming_blocks):
            block.replace_block_output_var(output, wide)


class _Value:
    """The part of a variable in which the pass corrects a constant's value."""

    def __init__(self, val: Any) -> None:
        self.val = val

    @property
    def _sym_val(self) -> _Value:
        return self


def _variables(given: Any) -> Iterator[Any]:
    return iter(given) if isinstance(given, list | tuple) else iter((given,))


def _is_wide(variable: Any) -> bool:
    return bool(variable.is_tensor_or_scalar_of(_WIDE))


def _output_names(op: Any) -> list[str]:
    """What coremltools calls the results of an operation of this name."""
    return [op.name] if len(op.outputs) == 1 else [f"{op.name}_{number}" for number in range(len(op.outputs))]


def _copy_module(source: Any, new: Any) -> None:
    """Note at the operation of a new variable the module that another variable comes from."""
    from coremltools.converters.mil.mil import Block

    Block._copy_scope_info(source, new)


PATCH = Patch(
    name="half precision in place",
    why="the pass makes a new operation for each, between casts, and a dozen passes clean up after it",
    without="conversion takes half as long again",
    equality_test="tests/coreml/test_half.py",
    sources=(
        *known(
            "coremltools.converters.mil.mil.passes.defs.quantization",
            {
                "AbstractQuantizationPass.apply": ("f8c5c93a6363318d",),
                "CastTypeQuantization.transform_op": ("c4548e8724b36288",),
                "CastTypeQuantization.should_cast_parameter": ("324c193d925d2055",),
                "CastTypeQuantization._get_casted_outputs": ("ebbee4bf367e08d5",),
                "FP16ComputePrecision.is_valid_op": ("9cfc09fc1d3846e9",),
                "FP16ComputePrecision.should_cast_parameter": ("18c379014ab5c5db",),
                "FP16ComputePrecision._check_underflow_to_zero": ("62d1471f24589f14",),
            },
        ),
        *known(
            "coremltools.converters.mil.mil.ops.defs.iOS15.elementwise_unary",
            {
                "cast.get_cast_value": ("c7488014cba35d12",),
            },
        ),
        *known(
            "coremltools.converters.mil.mil.block",
            {
                "Block._copy_scope_info": ("8e26e2ce8914ca10",),
            },
        ),
    ),
    made=_made,
)
