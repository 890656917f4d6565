"""The bundle stage: the models, the tokenizer's files and `bundle.json` in the layout that the Swift package loads.

Inputs: ``index`` (the checkpoint's JSON files), ``tokenizer``, with T5 ``tokenizer_3``, one role a part (`unet`,
`controlled_unet`, `controlnet-NAME`, `t2i_adapter-NAME`, …) with its packages or compiled models, and
``verify-STAGE-PART`` with a comparison's only JSON file. Where ``prediction`` is there, UNets make noise of a velocity.
Parameters: what the recipe and the target say, as `sdbuild.plan.bundle_description` writes them out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle import document
from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.layout import DOCUMENT, RESOURCES, find_models
from sdbuild.bundle.settings import swift_package
from sdbuild.bundle.t5_tokenizer import write_t5_tokenizer
from sdbuild.bundle.vocabulary import check_ids
from sdbuild.components import network_of
from sdbuild.documents import read_json
from sdbuild.estimate.bundle_memory import MemoryEstimate, ModelMemory, keeps_compressed, summary
from sdbuild.families.family import PIXELS
from sdbuild.interface.swift.files import T5_TOKENIZER, base_name
from sdbuild.stages import Stage
from sdbuild.stages.account import FILE as ACCOUNT_FILE
from sdbuild.stages.bundle_parameters import Parameters
from sdbuild.stages.files import place, place_tree
from sdbuild.stages.footprints import read_footprints
from sdbuild.stages.parameters import reads, to_document

STAGE = Stage(
    name="bundle",
    version=6,
    parameters=Parameters,
    title="the Resources directory and bundle.json for {}",
    group="put bundles together",
    reads="everything",
    result="`Resources` and `bundle.json`, linted",
    follows=("source", "schedule", "account", "prediction", "convert", "quantize", "chunk", "compile", "verify"),
    product=DOCUMENT,
    further_groups=(("variant", "put together what the contact sheet is drawn with"),),
)

_VERIFICATION = "verify-"
_ACCOUNT = "account"
_FILES = ("index", "prediction", "tokenizer", "tokenizer_3", "vae", _ACCOUNT)
_OPERATING_SYSTEMS = {
    "iOS16": {"iOS": "16.0", "macOS": "13.0"},
    "iOS17": {"iOS": "17.0", "macOS": "14.0"},
    "iOS18": {"iOS": "18.0", "macOS": "15.0"},
}
# The rest of what the target says went into the estimate.
_TARGET = ("name", "device", "chip", "os", "os_version", "compute_unit")


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Assemble one bundle in `out` and check it.

    Raises:
        BundleError: a part's artifact holds no model, the tokenizer is unusable, or the bundle breaks the contract.
    """
    from sdbuild.bundle.linter import check
    from sdbuild.bundle.tokenizer import padding_token, write_tokenizer

    resources = out / RESOURCES
    resources.mkdir()
    models: dict[str, dict[str, Any]] = {}
    parts = [role for role in inputs if role not in _FILES and not role.startswith(_VERIFICATION)]
    for index, part in enumerate(parts):
        progress(index / len(parts), part)
        footprints = read_footprints(inputs[part])
        for name, path in _place_models(part, inputs[part], resources):
            described = document.describe_model(resources, name) | _settings(part, params)
            models[name.rpartition(".")[0]] = described | {"memory": _memory(footprints.get(path.stem), params)}
    gives_noise = "prediction" in inputs
    facts = document.checkpoint_facts(inputs["index"], inputs.get("vae"), gives_noise=gives_noise)
    if "tokenizer_3" in inputs:
        configuration, _ = T5_TOKENIZER
        place(inputs["tokenizer_3"] / configuration, resources / configuration)
        write_t5_tokenizer(inputs["tokenizer_3"], resources)
    conditioned = {"controlnets": bool(params.controlnets), "t2i_adapters": bool(params.t2i_adapters)}
    facts["extensions"] = document.extensions(facts, **conditioned)
    if "tokenizer" in inputs:
        write_tokenizer(inputs["tokenizer"], resources)
        facts["tokenizer"] = document.tokenizer_facts(resources, padding_token(inputs["tokenizer"]))
        if inversions := document.textual_inversions(inputs["tokenizer"], to_document(params.textual_inversions)):
            facts["textual_inversions"] = inversions
        elif (encoder := inputs["index"] / "text_encoder" / "config.json").is_file():
            check_ids(resources, read_json(encoder))  # textual inversions have added rows that no configuration tells
    document.write_json(out / DOCUMENT, _document(inputs, params, models, facts))
    progress(1.0, "checking the bundle")
    check(out)


def _place_models(part: str, artifact: Path, resources: Path) -> Iterator[tuple[str, Path]]:
    """Place a part's models under the bundle's names; yields each name with its suffix, and where it came from."""
    found = find_models(artifact)
    if not 1 <= len(found) <= 2:
        raise BundleError(
            f"{part}: its artifact holds {len(found)} models ({artifact}); there must be one, or two chunks"
        )
    for number, path in enumerate(found, start=1):
        chunk = f"Chunk{number}" if len(found) == 2 else ""
        name = f"{base_name(part)}{chunk}{path.suffix}"
        place_tree(path, resources / name)
        yield name, path


def _memory(footprint: Mapping[str, Any] | None, params: Parameters) -> dict[str, int] | None:
    """What one model needs in the target's memory; None where its program does not tell."""
    if footprint is None or footprint["activations"] is None:
        return None
    target = params.target
    compressed = keeps_compressed(target.os_generation, target.compute_unit)
    return {
        "weights": footprint["stored"] if compressed else footprint["expanded"],
        "activations": footprint["activations"],
    }


def _estimate(models: Mapping[str, Mapping[str, Any]], params: Parameters) -> dict[str, int | bool] | None:
    """What the whole bundle needs there; None where a model does not tell."""
    parts: dict[str, ModelMemory] = {}
    for model in models.values():
        if (memory := model["memory"]) is None:
            return None
        found = parts.get(model["part"], ModelMemory(model["part"], 0, 0))
        parts[found.part] = ModelMemory(
            found.part, found.weights + memory["weights"], found.activations + memory["activations"]
        )
    return summary(MemoryEstimate(tuple(parts.values()), params.target.app_memory, params.reduce_memory))


def _settings(part: str, params: Parameters) -> dict[str, Any]:
    """How the recipe had a part's models made."""
    denoises = network_of(part).denoises
    return {
        "part": part,
        "bits": params.quantization[part],
        "compression": params.compression[part].method if params.quantization[part] else None,
        "group_size": params.compression[part].group_size,
        "precision": params.precision[part],
        "attention_implementation": params.attention_implementation if denoises else None,
    }


def _document(
    inputs: Mapping[str, Path], params: Parameters, models: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    copied = (
        "recipe", "model", "components", "attention_implementation", "latent", "text_sequence_length", "unet",
        "controlnets", "refiner", "vae_checkpoint", "loras", "allowed_rules", "compiled",
    )  # fmt: skip
    stated = to_document(params)
    # Said of bundles with them alone, so that those without stay as they are.
    adapters = {name: stated[name] for name in ("t2i_adapters", "clip_skip", "denoiser_checkpoint") if name in stated}
    whole = {
        "format": document.FORMAT,
        **{name: stated[name] for name in copied},
        **adapters,
        "target": {name: stated["target"][name] for name in _TARGET},
        **facts,
        "image": {"height": PIXELS * params.latent.height, "width": PIXELS * params.latent.width},
        "deployment_target": params.deployment_target,
        "minimum_os": _OPERATING_SYSTEMS[params.deployment_target],
        "compute_unit": params.target.compute_unit,
        "memory": _estimate(models, params),
        "license": document.license_of(inputs["index"]),
        "sources": json.loads((inputs[_ACCOUNT] / ACCOUNT_FILE).read_bytes()),
        "models": models,
        "verification": _verification(inputs) if params.verified else document.NOT_VERIFIED,
    }
    settings = swift_package(whole, reduce_memory=params.reduce_memory)
    return whole | {"swift_package": settings.model_dump(by_alias=True, mode="json")}


def _verification(inputs: Mapping[str, Path]) -> dict[str, Any]:
    reports = {}
    for role, path in inputs.items():
        if role.startswith(_VERIFICATION):
            (report,) = path.glob("*.json")
            reports[role.removeprefix(_VERIFICATION)] = json.loads(report.read_bytes())
    return reports
