"""The stock conversion of a component, and what two packages have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil.mil.scope import ScopeSource

from sdbuild.coreml.lowering.export import module_paths
from sdbuild.coreml.lowering.patches.operators import register_missing_operators
from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.coreml.package import Package
from sdbuild.known_source import KnownSource
from sdbuild.models.component import ComponentModel


def convert_stock(
    model: ComponentModel, out: Path, *, precision: str, deployment_target: str, float32_modules: Collection[str] = ()
) -> Package:
    """`torch.export` with real float32 weights, then `coremltools.convert`."""
    register_missing_operators()
    examples = tuple(
        torch.zeros(spec.shape, dtype=torch.int32 if spec.dtype == "int32" else torch.float32) for spec in model.inputs
    )
    with torch.no_grad():
        exported = torch.export.export(model.materialise(), examples, strict=False).run_decompositions({})
    paths = module_paths(exported)

    def computes_in_half(op: Any) -> bool:
        path = paths[op.scopes[ScopeSource.EXIR_DEBUG_HANDLE][0] or 0]
        return not any(path == kept or path.startswith(kept + ".") for kept in float32_modules)

    half = precision == "float16"
    selective = ct.transform.FP16ComputePrecision(op_selector=computes_in_half)
    ct.convert(
        exported,
        inputs=[
            ct.TensorType(
                name=spec.name,
                shape=spec.shape,
                dtype=np.dtype("float32" if spec.dtype == "float16" and not half else spec.dtype).type,
            )
            for spec in model.inputs
        ],
        outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in model.outputs],
        minimum_deployment_target=ct.target[deployment_target],
        compute_precision=(selective if float32_modules else ct.precision.FLOAT16) if half else ct.precision.FLOAT32,
        skip_model_load=True,
    ).save(str(out))
    return Package.open(out)


def unknown(patch: Patch) -> Patch:
    """The same replacement, under libraries that it was not written for."""
    return replace(patch, sources=(KnownSource("coremltools", "nothing_that_exists", ()),))


def program_of(package: Package) -> bytes:
    """The serialised program and interface, without metadata, and with values numbered in order of appearance.

    coremltools numbers the constants that have no name of their own, also those that a translation makes in vain, as
    that of a check at run time does. So the numbers may differ where the programs do not.
    """
    spec = type(package.spec)()
    spec.CopyFrom(package.spec)
    spec.mlProgram.attributes.clear()
    spec.description.ClearField("metadata")
    features = (*spec.description.input, *spec.description.output)
    for feature in features:
        feature.shortDescription = ""
    names = {feature.name: feature.name for feature in features}
    for block in spec.mlProgram.functions["main"].block_specializations.values():
        for operation in block.operations:
            operation.attributes["name"].Clear()
            for output in operation.outputs:
                output.name = names.setdefault(output.name, f"%{len(names)}")
            for argument in operation.inputs.values():
                for binding in argument.arguments:
                    if binding.name:
                        binding.name = names[binding.name]
        block.outputs[:] = [names[name] for name in block.outputs]
    return bytes(spec.SerializeToString(deterministic=True))


def weights_of(package: Package) -> bytes:
    """The weight file."""
    return b"" if package.weights is None else package.weights.path.read_bytes()


def operations_of(package: Package) -> Iterator[tuple[str, str, Any]]:
    """The type, the name and the message of every output's operation."""
    for block in package.spec.mlProgram.functions["main"].block_specializations.values():
        for operation in block.operations:
            for output in operation.outputs:
                yield operation.type, output.name, operation
