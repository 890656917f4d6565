"""The original models behind the same interface: what conversions are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdbuild.models.arguments import BuildArguments
from sdbuild.models.registry import function, registered


@dataclass(frozen=True)
class Original:
    """A library's own model behind a component's interface.

    Attributes:
        module: the model, in float32.
        run: the component's inputs in order → its outputs in order.
    """

    module: nn.Module
    run: Callable[..., tuple[Tensor, ...]]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call the model as `ComponentModel.module` is called."""
        with torch.no_grad():
            return self.run(*inputs)


def reference(component: str, checkpoint: Path, **arguments: Any) -> Original:
    """The library's own model in float32, called as `ComponentModel.module` is.

    The weights are loaded by those libraries, not by `sdbuild.checkpoints.checkpoint`, so that a mistake there shows.

    Args:
        component: as for `sdbuild.models.build`.
        checkpoint: the component's folder.
        arguments: as for `sdbuild.models.build`.

    Raises:
        ModelError: the library did not find every weight.
    """
    model: Original = function(registered(component).original)(component, checkpoint, BuildArguments.of(arguments))
    return model
