"""The account of files of one network: what of them is that network's, and what is beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sdbuild.checkpoints.account.entry import Entry, Kind, Use
from sdbuild.checkpoints.account.tensors import of_type
from sdbuild.checkpoints.float8_names import is_beside, why_beside
from sdbuild.checkpoints.header import Header
from sdbuild.checkpoints.part_file import PartFileError, layout_of

_HARMLESS_METADATA = re.compile(
    r"format|modelspec\..*|ss_.*|sshs_.*|sd_merge_.*|.*_hash|software|created|date|source|title|author|license"
)
_LEFTOVERS = re.compile(r"(model_ema|loss|optimizer|global_step|epoch|lr_scheduler)\b.*|.*num_batches_tracked")


def judge_part(component: str, place: str, header: Header) -> Iterator[Entry]:
    """What becomes of everything in a file of one network; whether it fits its pipeline is told when it is taken.

    Args:
        component: `vae`, `unet`, `transformer` or `controlnet`.
        place: the file's name in the source.
        header: its tensors and metadata.
    """
    try:
        layout = layout_of(component, {name: tensor.shape for name, tensor in header.tensors.items()})
    except PartFileError as error:
        yield Entry(place, Kind.FILE, place, Use.REFUSED, str(error))
        return
    for name in header.metadata:
        known = _HARMLESS_METADATA.fullmatch(name) is not None
        use, reason = (Use.HARMLESS, "describes the file for people") if known else (Use.WARNED, "is not known")
        yield Entry(place, Kind.METADATA, name, use, reason)
    for name, tensor in header.tensors.items():
        inner = name.removeprefix(layout.prefix)
        if is_beside(name):
            yield Entry(place, Kind.TENSOR, name, *why_beside(name))
        elif _LEFTOVERS.match(inner):
            yield Entry(place, Kind.TENSOR, name, Use.HARMLESS, "acts in training alone")
        elif name.startswith(layout.prefix) and layout.owns(inner):
            yield Entry(place, Kind.TENSOR, name, *of_type(tensor))
        else:
            yield Entry(place, Kind.TENSOR, name, Use.WARNED, f"is none of the {component}'s, which alone is taken")


def judge_metadata_of_adapter(place: str, metadata: Mapping[str, str], used: tuple[str, ...] = ()) -> Iterator[Entry]:
    """What becomes of the words in the header of an adapter's file: trainers describe there how it was made."""
    for name in metadata:
        if name in used:
            yield Entry(place, Kind.METADATA, name, Use.USED)
        elif _HARMLESS_METADATA.fullmatch(name):
            yield Entry(place, Kind.METADATA, name, Use.HARMLESS, "describes how the file was made")
        else:
            yield Entry(place, Kind.METADATA, name, Use.WARNED, "is not known, and nothing reads it")
