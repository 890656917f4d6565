"""Put a deferred array in the place of each parameter and buffer that a checkpoint has a weight for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch._subclasses.fake_tensor import FakeTensor

from sdbuild.coreml.lowering.deferred import DeferredArray
from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known
from sdbuild.tensors import Weight


@contextmanager
def _made(exported: Any, weights: Mapping[str, Weight]) -> Iterator[None]:
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch.converter import TorchConverter

    signature = exported.graph_signature
    sources = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    add_real_constant = TorchConverter._add_const

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

    with replaced(TorchConverter, "_add_const", add_constant):
        yield


PATCH = Patch(
    name="deferred constants",
    why="weights are not in memory while a graph is lowered",
    without="there would be no values",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=known(
        "coremltools.converters.mil.frontend.torch.converter", {"TorchConverter._add_const": ("f4c2eb2d7620048f",)}
    ),
    made=_made,
    required=True,
)
