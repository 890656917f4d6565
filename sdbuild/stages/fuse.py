"""The fuse stage: a component's weights with LoRAs added, as if the checkpoint had been trained that way.

Inputs: ``checkpoint``, the component's folder, and ``lora-N`` for each LoRA, a folder with its file. Parameters:
``component`` (`unet`, `transformer` or a text encoder), and ``weights``: role → what the LoRA is multiplied with, as
a decimal. The result has the files of ``checkpoint``; weights that no LoRA changes keep their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sdbuild.checkpoints.files import is_card
from sdbuild.stages import Stage
from sdbuild.stages.files import place, place_tree
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """What is added to which weights.

    Attributes:
        component: `unet`, `text_encoder` or `text_encoder_2`.
        weights: role of a LoRA → what it is multiplied with, as a decimal.
    """

    component: str
    weights: Mapping[str, str]


STAGE = Stage(
    name="fuse",
    version=2,
    parameters=Parameters,
    title="the checkpoint's {} with LoRAs added",
    group="add LoRAs to the weights",
    reads="one component's files, LoRAs",
    result="the same files with the LoRAs in the weights",
    follows=("source",),
)

_WEIGHTS = dict.fromkeys(("unet", "transformer"), "diffusion_pytorch_model.safetensors")
_OTHER_WEIGHTS = "model.safetensors"


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Fill `out` with the component's files.

    Raises:
        ModelError: a LoRA is damaged, of an unknown kind, or was trained for another family.
    """
    from sdbuild.checkpoints.checkpoint import Checkpoint
    from sdbuild.checkpoints.lora.file import open_lora
    from sdbuild.checkpoints.lora.fused import FusedTensor, fuse
    from sdbuild.checkpoints.write import write_safetensors

    component, source = params.component, inputs["checkpoint"]
    loras = [open_lora(inputs[role], float(weight), role) for role, weight in params.weights.items()]
    tensors = fuse(component, Checkpoint.open(source), loras)
    words = sorted({word for lora in loras for word in lora.embeddings})
    also = f"; not taken: the words {', '.join(words)}, which textual_inversions can name" if words else ""
    changed = sum(isinstance(tensor, FusedTensor) for tensor in tensors.values())
    if not changed:
        # The same bytes, so that what follows is shared with builds without the LoRA.
        place_tree(source, out)
        progress(1.0, f"no LoRA changes the {component}{also}")
        return
    for path in source.iterdir():
        if path.name == "config.json" or is_card(path.name):
            place(path, out / path.name)
    write_safetensors(out / _WEIGHTS.get(component, _OTHER_WEIGHTS), tensors, progress)
    progress(1.0, f"{changed} of {len(tensors)} tensors changed{also}")
