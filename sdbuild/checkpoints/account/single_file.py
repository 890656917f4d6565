"""The account of a whole checkpoint in one file: weights, markers, metadata, and what training left in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdbuild.checkpoints.account.entry import Entry, Kind, Use
from sdbuild.checkpoints.account.foreign import foreign
from sdbuild.checkpoints.account.tensors import judge_tensors, network
from sdbuild.checkpoints.float8_names import is_beside, why_beside
from sdbuild.checkpoints.header import Header, HeaderError, TensorHeader, read_numbers
from sdbuild.checkpoints.markers import MARKERS, PREDICTION_KEYS, MarkerError, PredictionType, read_markers
from sdbuild.checkpoints.single_file import NOT_PARAMETERS, PREFIXES, Folder, SingleFile, SingleFileError, describe
from sdbuild.checkpoints.single_file_tensors import translated

_LEFTOVERS: tuple[tuple[str, str], ...] = (
    (r"model_ema\.", "the running average of the weights; the weights themselves are used, as diffusers does"),
    (r"(first_stage_model\.)?loss\.", "acts in training alone"),
    (r"(optimizer|lr_scheduler|callbacks|loops|epoch|global_step|pytorch-lightning)", "a state of the training"),
    (
        r"(alphas_cumprod|betas|sqrt_|log_one_minus_|posterior_|lvlb_weights|logvar|alphas_cumprod_prev)",
        "follows from the schedule, which is SD's",
    ),
    (r"denoiser\.(sigmas|log_sigmas)", "follows from the schedule, which is SD's"),
    (r"conditioner\.embedders\.\d+\.(model|transformer)\.(logit_scale|visual\.)", "belongs to the whole CLIP"),
)
_METADATA: tuple[tuple[str, str], ...] = (
    (r"format", "names the library that wrote the file"),
    (
        r"modelspec\.(sai_model_spec|implementation|title|description|author|date|hash_sha256|license|usage_hint|tags|"
        r"thumbnail|merged_from|trigger_phrase|resolution|preprocessor|is_negative_embedding|unet_dtype|vae_dtype|"
        r"data_format|creator|url|source)",
        "describes the file for people",
    ),
    (r"(prompt|workflow|parameters|extra_pnginfo|notes)", "how the program that wrote the file was used"),
    (r"(sd_merge_(models|recipe)|__?merge_.*|sshs_.*|ss_.*|.*_hash|software|created|date)", "how the file was made"),
)
_ARCHITECTURE, _LAYER = "modelspec.architecture", "modelspec.encoder_layer"
_ARCHITECTURES = {
    "sd1": ("stable-diffusion-v1",),
    "sd2": ("stable-diffusion-v2",),
    "sdxl": ("stable-diffusion-xl-v1-base", "playground-v2", "stable-diffusion-xl-turbo"),
    "sdxl-refiner": ("stable-diffusion-xl-v1-refiner",),
}
_SCHEDULE, _STEPS = "alphas_cumprod", 1000


def judge_single_file(
    place: str, path: Path | None, header: Header, prediction_type: PredictionType | None
) -> Iterator[Entry]:
    """What becomes of everything in the file.

    Args:
        place: its name in the source.
        path: the file, for the numbers of its markers; None for a pickle, whose header has them.
        header: its tensors and metadata.
        prediction_type: what the recipe says that its UNet predicts.
    """
    try:
        markers = read_markers(
            frozenset(header.tensors), header.metadata, lambda name: read_numbers(path, header, name)
        )
    except (MarkerError, HeaderError) as error:
        yield Entry(place, Kind.MARKER, "markers", Use.REFUSED, str(error))
        return
    try:
        described = describe({name: t.shape for name, t in header.tensors.items()}, prediction_type, markers)
    except SingleFileError as error:
        yield from _foreign(place, header.tensors)
        yield Entry(place, Kind.FILE, place, Use.REFUSED, str(error))
        return
    contradicted = prediction_type is not None and markers.prediction_type not in (None, prediction_type)
    for name in markers.used:
        kind = Kind.MARKER if name in MARKERS else Kind.METADATA
        told = Use.HARMLESS if contradicted else Use.USED
        reason = f"the recipe overrules it with prediction_type: {prediction_type}" if contradicted else ""
        yield Entry(place, kind, name, told, reason)
    yield from _judge_metadata(place, header.metadata, described, markers.used)
    for name, folder in described.folders.items():
        yield from _judge_component(place, name, folder, header.tensors)
    yield from _judge_rest(place, path, header, described)


def _foreign(place: str, tensors: Mapping[str, TensorHeader]) -> Iterator[Entry]:
    for name in tensors:
        if reason := foreign(name):
            yield Entry(place, Kind.TENSOR, name, Use.REFUSED, reason)
            return


def _judge_component(
    place: str, component: str, folder: Folder, tensors: Mapping[str, TensorHeader]
) -> Iterator[Entry]:
    """A component's tensors under the names of diffusers' layout, judged there and named as in the file."""
    known = network(folder.config.get("_class_name") or folder.config["architectures"][0])
    assert known is not None
    named: dict[str, TensorHeader] = {}
    origins: dict[str, str] = {}
    for name, tensor in tensors.items():
        if not name.startswith(folder.prefix):
            continue
        inner = name.removeprefix(folder.prefix)
        if is_beside(name):
            yield Entry(place, Kind.TENSOR, name, *why_beside(name))
        elif inner.endswith(NOT_PARAMETERS):
            yield Entry(place, Kind.TENSOR, name, Use.HARMLESS, "a buffer, which follows from the configuration")
        elif inner.startswith("loss."):
            yield Entry(place, Kind.TENSOR, name, Use.HARMLESS, "acts in training alone")
        elif parts := translated(component, folder, inner, tensor):
            if not any(parts):
                yield Entry(place, Kind.TENSOR, name, Use.HARMLESS, "is never reached: the layer before it is the last")
            for target, part in parts.items():
                if target:
                    named[target], origins[target] = part, name
        else:
            yield Entry(place, Kind.TENSOR, name, *_strange(name))
    told: set[str] = set()
    for entry in judge_tensors(place, named, folder.config, known):
        origin = origins.get(entry.name, f"{folder.prefix}… for {component}'s {entry.name}")
        if origin not in told or entry.use is Use.REFUSED:
            told.add(origin)
            yield Entry(place, entry.kind, origin, entry.use, entry.reason)


def _strange(name: str) -> tuple[Use, str]:
    if reason := foreign(name):
        return Use.REFUSED, reason
    return Use.REFUSED, "is none of a published family's; give the model in diffusers' layout"


def _judge_rest(place: str, path: Path | None, header: Header, described: SingleFile) -> Iterator[Entry]:
    """What stands beside the components."""
    prefixes = tuple(folder.prefix for folder in described.folders.values())
    for name, tensor in header.tensors.items():
        if name in MARKERS or name.startswith(prefixes):
            continue
        if name == _SCHEDULE and tensor.shape == (_STEPS,):
            yield Entry(place, Kind.TENSOR, name, *_judge_schedule(path, header, described))
        elif reason := next((reason for pattern, reason in _LEFTOVERS if re.match(pattern, name)), None):
            yield Entry(place, Kind.TENSOR, name, Use.HARMLESS, reason)
        elif reason := foreign(name):
            yield Entry(place, Kind.TENSOR, name, Use.REFUSED, reason)
        elif name.startswith(PREFIXES):
            yield Entry(place, Kind.TENSOR, name, Use.WARNED, "is of no component that the family has")
        else:
            yield Entry(place, Kind.TENSOR, name, Use.WARNED, "is not known, and nothing reads it")


def _judge_schedule(path: Path | None, header: Header, described: SingleFile) -> tuple[Use, str]:
    """The schedule that training left behind, against the one that the configuration states."""
    schedule = described.scheduler
    if "beta_start" not in schedule:
        return Use.HARMLESS, "the markers say that it draws by sigmas"
    try:
        stored = read_numbers(path, header, _SCHEDULE)
    except (HeaderError, KeyError):
        return Use.HARMLESS, "follows from the schedule, which is SD's"
    share, expected = 1.0, []
    first, last = schedule["beta_start"] ** 0.5, schedule["beta_end"] ** 0.5
    for step in range(_STEPS):
        share *= 1 - (first + (last - first) * step / (_STEPS - 1)) ** 2
        expected.append(share)
    if all(abs(one - other) <= 0.01 * other for one, other in zip(stored, expected, strict=True)):
        return Use.HARMLESS, "follows from the schedule, which is SD's"
    if described.schedule.get("rescale_betas_zero_snr"):
        return Use.HARMLESS, "the rescaled schedule, of which the marker ztsnr tells"
    zero = stored[-1] < 1e-4
    what = "a schedule that ends without any signal" if zero else "another schedule than SD's"
    advice = "scheduler: {rescale_betas_zero_snr: true, timestep_spacing: trailing}" if zero else "scheduler: {…}"
    return Use.WARNED, f"holds {what}, and SD's is taken; if it was trained so, state it in the recipe: `{advice}`"


def _judge_metadata(
    place: str, metadata: Mapping[str, str], described: SingleFile, used: tuple[str, ...]
) -> Iterator[Entry]:
    for name, value in metadata.items():
        if name in used:
            continue
        if name in PREDICTION_KEYS:
            reason = f"says {value!r}, which is neither epsilon nor v; state model.prediction_type in the recipe"
            yield Entry(place, Kind.METADATA, name, Use.WARNED, reason)
        elif name == _ARCHITECTURE:
            yield Entry(place, Kind.METADATA, name, *_judge_architecture(value, described))
        elif name == _LAYER:
            last = value.strip() in ("", "1", "0", "None")
            reason = "the last layer, as is done" if last else f"asks for layer {value} from the end, which is not done"
            yield Entry(place, Kind.METADATA, name, Use.HARMLESS if last else Use.WARNED, reason)
        elif reason := next((reason for pattern, reason in _METADATA if re.fullmatch(pattern, name)), ""):
            yield Entry(place, Kind.METADATA, name, Use.HARMLESS, reason)
        else:
            yield Entry(place, Kind.METADATA, name, Use.WARNED, "is not known, and nothing reads it")


def _judge_architecture(value: str, described: SingleFile) -> tuple[Use, str]:
    if value.startswith(_ARCHITECTURES[described.family]):
        return Use.HARMLESS, "names the family, which the tensors show"
    return Use.WARNED, f"says {value!r}, and the tensors are those of {described.family}"
