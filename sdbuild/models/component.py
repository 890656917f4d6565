"""What the rest of sdbuild sees of a model: a module without weights, its interface, and where its weights lie."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sdbuild.checkpoints.account.bounds import out_of_bounds
from sdbuild.documents import DocumentError, read_json
from sdbuild.models.errors import ModelError
from sdbuild.tensors import TensorSpec, Weight


@dataclass(frozen=True)
class ComponentModel:
    """One component, ready to be exported.

    Attributes:
        component: the component's name in a recipe, `controlnet` or `t2i_adapter`.
        module: on the meta device and in evaluation mode. `forward` takes the inputs in order, float32 or int32, and
            returns a tuple of float32 tensors in the outputs' order.
        inputs: the interface that the Swift package feeds.
        outputs: the interface that it reads.
        weights: parameter or buffer name of `module.state_dict()` → stored tensor, in that order.
        float32_modules: paths of submodules whose operations keep float32 in a float16 package.
    """

    component: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: Mapping[str, Weight]
    float32_modules: tuple[str, ...] = ()

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """Tensors on the meta device with the inputs' shapes and types: what `torch.export` needs."""
        return tuple(
            torch.empty(spec.shape, dtype=torch.int32 if spec.dtype == "int32" else torch.float32, device="meta")
            for spec in self.inputs
        )

    def materialise(self) -> nn.Module:
        """A copy of the module with its weights in memory as float32."""
        module = copy.deepcopy(self.module).to_empty(device="cpu")
        for name, target in module.state_dict().items():
            weight = self.weights[name]
            # The copy is needed: torch wants writable memory, and the pages are about to be given back.
            target.copy_(torch.from_numpy(np.array(weight.read(), dtype=np.float32)))
            weight.done()
        return module


def read_config(checkpoint: Path, *classes: str) -> dict[str, Any]:
    """The component's `config.json`.

    Args:
        checkpoint: the component's folder.
        classes: the class names that this component may have been saved as; none means any.

    Raises:
        ModelError: the file is missing or unreadable, or is another class's.
    """
    path = checkpoint / "config.json"
    try:
        config = read_json(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}). A component needs its config.json.") from error
    except DocumentError as error:
        raise ModelError(f"{path}: cannot be read: {error}. Download it again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is not a JSON object. Download it again.")
    if wrong := next(out_of_bounds(config), None):
        raise ModelError(f"{path}: {wrong}. Take the file of the model that the weights are of.")
    name = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    if classes and name not in (None, *classes):
        raise ModelError(f"{path}: holds a {name}; this component can be built from {' or '.join(classes)}.")
    return dict(config)
