"""What `bundle.json` says for the Swift package: predictions, schedules and settings, against what the package does.

The package reads none of it, so nothing of this fails when a bundle is loaded: pictures come out wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdbuild.bundle.linter.violation import Violation
from sdbuild.bundle.settings import Configuration, Initializer, swift_package
from sdbuild.checkpoints.noise_schedule import FLOW_PREDICTION, V_PREDICTION, departures
from sdbuild.interface.swift.rows import EXTENSIONS

_WHERE = "bundle.json"
_NOISE = "epsilon"
_PREDICTIONS = {V_PREDICTION: "v-prediction", "sample": "sample-prediction"}
# Extensions that follow from the scheduler's configuration and the VAE's, and that no model shows.
_COMPUTED = (
    *("zero-terminal-snr", "noise-schedule", "edm", "flow-matching", "flow-schedule", "sample-prediction"),
    *("latent-statistics", "latent-shift"),
)
# Settings that a bundle decides; the others are an app's to choose, and ours are advice.
_DECIDED = {
    "initializer": ("controlNet", "useMultilingualTextEncoder"),
    "configuration": (
        *("schedulerTimestepShift", "encoderScaleFactor", "decoderScaleFactor", "decoderShiftFactor", "originalSize"),
        "targetSize",
    ),
}
_SECTIONS: Mapping[str, type[Initializer] | type[Configuration]] = {
    "initializer": Initializer,
    "configuration": Configuration,
}


def lint_client(document: Mapping[str, Any]) -> Iterator[Violation]:
    """Check what the document says for the package."""
    yield from _lint_extensions(document)
    yield from _lint_prediction(document)
    yield from _lint_schedule(document)
    yield from _lint_settings(document)


def notes(document: Mapping[str, Any]) -> Iterator[str]:
    """What is no fault of a bundle, and that an app should know: sentences."""
    image = document["image"]
    if document["swift_package"]["pipeline"] == "StableDiffusionXLPipeline" and image["height"] != image["width"]:
        size = max(image.values())
        yield (
            "the package tells SDXL one number for both sides of a picture; originalSize and targetSize are the longer "
            f"side of {image['height']} × {image['width']}, {size:g}"
        )
    if document["extensions"]:
        said = "; ".join(f"{name} ({EXTENSIONS[name]})" for name in document["extensions"] if name in EXTENSIONS)
        yield f"an app of its own draws with this bundle, not the package alone: {said}"


def _lint_extensions(document: Mapping[str, Any]) -> Iterator[Violation]:
    for name in document["extensions"]:
        if name not in EXTENSIONS:
            yield Violation("extensions", f"{_WHERE}, extensions", f"{name}; known are {', '.join(sorted(EXTENSIONS))}")


def _lint_prediction(document: Mapping[str, Any]) -> Iterator[Violation]:
    said, scheduler = document["prediction_type"], document["scheduler"]
    where = f"{_WHERE}, prediction_type"
    if document["family"] == "sd3":
        if said != FLOW_PREDICTION:
            yield Violation("prediction-type", where, f"{said}, SD 3's is {FLOW_PREDICTION}")
        return
    expected = _PREDICTIONS.get(said)
    announced = [name for name in _PREDICTIONS.values() if name in document["extensions"]]
    if said != _NOISE and expected is None and "flow-matching" not in document["extensions"]:
        yield Violation("prediction-type", where, f"{said}; the package's schedulers take {_NOISE}")
    elif announced != ([expected] if expected else []):
        what = f"{said}, which the package's schedulers do not take, and extensions lack {expected}"
        yield Violation("prediction-type", where, what if expected else f"{said}, but extensions say {announced[0]}")
    if scheduler.get("prediction_type", _NOISE) != said and "flow-matching" not in document["extensions"]:
        what = f"the scheduler takes {scheduler.get('prediction_type', _NOISE)}, the UNet gives {said}"
        yield Violation("prediction-type", f"{_WHERE}, scheduler.prediction_type", what)


def _lint_schedule(document: Mapping[str, Any]) -> Iterator[Violation]:
    found = departures(document["scheduler"], document["vae"], document["family"])
    said = {name for name in document["extensions"] if name in _COMPUTED}
    for name in sorted({*found} - said - {*_PREDICTIONS.values()}):
        yield Violation("schedule", f"{_WHERE}, scheduler", f"{found[name]}; extensions lack {name}")
    for name in sorted(said - {*found} - {*_PREDICTIONS.values()}):
        yield Violation("schedule", f"{_WHERE}, extensions", f"{name}, which neither scheduler nor vae show")


def _lint_settings(document: Mapping[str, Any]) -> Iterator[Violation]:
    section = document.get("swift_package")
    if section is None:
        yield Violation("settings", _WHERE, "no swift_package; build the bundle again")
        return
    reduce_memory = bool(section["initializer"]["reduceMemory"])
    expected = swift_package(document, reduce_memory=reduce_memory).model_dump(by_alias=True, mode="json")
    pairs = [("pipeline", section["pipeline"], expected["pipeline"])]
    for part, names in _DECIDED.items():
        pairs += [(f"{part}.{name}", section[part].get(name), expected[part][name]) for name in names]
    if "SafetyChecker" not in document["models"]:
        # With a checker an app may leave it out, without one there is nothing to ask for.
        pairs += [(f"{part}.disableSafety", section[part].get("disableSafety"), True) for part in _SECTIONS]
    flow, scheduler = "discreteFlowScheduler", section["configuration"].get("schedulerType")
    if (scheduler == flow) != (document["family"] == "sd3"):
        pairs.append(("configuration.schedulerType", scheduler, expected["configuration"]["schedulerType"]))
    for name, said, wanted in pairs:
        if said != wanted:
            yield Violation("settings", f"{_WHERE}, swift_package.{name}", f"{_text(said)}, must be {_text(wanted)}")
    for part, model in _SECTIONS.items():
        known = {field.alias for field in model.model_fields.values()}
        for name in sorted({*section[part]} - known):
            yield Violation("settings", f"{_WHERE}, swift_package.{part}.{name}", "the package has no such setting")


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
