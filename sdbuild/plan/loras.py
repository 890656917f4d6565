"""LoRAs judged before any work: what their names and shapes tell, against the recipe and a local checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sdbuild.checkpoints.files import CheckpointFilesError
from sdbuild.checkpoints.header import HeaderError, TensorHeader, read_header
from sdbuild.checkpoints.lora.files import LoraFilesError
from sdbuild.errors import SdbuildError
from sdbuild.plan.sources import Source
from sdbuild.recipe.diagnostics import Diagnostic, RecipeError
from sdbuild.recipe.load import LoadedRecipe
from sdbuild.recipe.validation import Location, find

ADAPTED = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""The components that LoRAs are trained on."""


def check_loras(
    loaded: LoadedRecipe, components: frozenset[str], loras: Mapping[int, Mapping[str, Path]], model: Source | None
) -> None:
    """Refuse what cannot be fused, or would change nothing.

    Args:
        loaded: the recipe.
        components: the components that any selected target builds.
        loras: number of the LoRA in the recipe → its files, as far as they are here; pickles are judged when they are
            read.
        model: where a local pipeline's weights are, whose names and shapes the LoRAs must fit.

    Raises:
        RecipeError: with every mistake, each with its line.
    """
    mistakes = []
    for index, files in loras.items():
        if any(not name.endswith((".safetensors", ".json")) for name in files):
            continue
        location: Location = ("loras", index)
        mistakes += [_diagnostic(loaded, location, *found) for found in _judge(loaded, components, index, files, model)]
    if mistakes:
        raise RecipeError(mistakes)


def _judge(
    loaded: LoadedRecipe, components: frozenset[str], index: int, files: Mapping[str, Path], model: Source | None
) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do."""
    from sdbuild.checkpoints.lora.file import Lora

    reference = loaded.recipe.loras[index]
    try:
        lora = Lora(files, reference.weight, f"`{reference.version}`")
        for component in sorted(lora.components & components):
            if model is not None and (tensors := component_shapes(model, component)) is not None:
                lora.changes(component, tensors)
    except SdbuildError as error:
        yield str(error), "give another file, or remove the LoRA"
        return
    reached = lora.components & components
    if not reached:
        what = ", ".join(sorted(lora.components))
        has = ", ".join(component for component in ADAPTED if component in components) or "none that a LoRA changes"
        yield (
            f"`{reference.version}` changes nothing in this recipe: it was trained on {what}, and the recipe has {has}",
            f"add {what} to `components`, or remove the LoRA",
        )


def component_shapes(source: Source, component: str) -> Mapping[str, TensorHeader] | None:
    """Names and shapes of a local component's tensors, by headers alone; None where they cannot tell."""
    if source.path is None or source.is_single_file:
        return None
    try:
        files = source.files(component, "float32")
        found: dict[str, TensorHeader] = {}
        for name, path in files.items():
            if name.endswith(".safetensors"):
                found |= read_header(path).tensors
            elif name.endswith((".bin", ".ckpt")):
                return None
    except (CheckpointFilesError, HeaderError, LoraFilesError):
        return None  # what is wrong with the checkpoint itself is told elsewhere
    return found or None


def _diagnostic(loaded: LoadedRecipe, location: Location, message: str, help_: str) -> Diagnostic:
    span, _ = find(loaded.root, location)
    return Diagnostic("lora", message, span, help_)
