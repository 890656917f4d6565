"""`bundle.json`: what a bundle is, for the app that ships it and for the tools that check it.

Everything in it follows from the recipe, the target and the artifacts, so that two builds give the same bytes; what
concerns the machine that built it stands in `build-host.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdbuild.bundle.digests import file_digest, tree_digest, tree_size
from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.features import Feature, read_interface
from sdbuild.bundle.layout import DOCUMENT, RESOURCES
from sdbuild.bundle.new_tokens import names_of
from sdbuild.bundle.tokenizer import INVERSIONS
from sdbuild.checkpoints.card import read_card
from sdbuild.checkpoints.noise_schedule import FLOW_PREDICTION, V_PREDICTION, departures
from sdbuild.documents import read_json
from sdbuild.families import FAMILIES, Ability, Family, Sampling
from sdbuild.interface.swift.files import MERGES, T5_TOKENIZER, VOCABULARY

FORMAT = 1
NOT_VERIFIED = "not verified"

Json = dict[str, Any]

_ZEROS = "force_zeros_for_empty_prompt"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write canonical JSON: sorted keys, two spaces, UTF-8, a final newline, no NaN."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_document(bundle: Path) -> Json:
    """Read the `bundle.json` of a bundle directory.

    Raises:
        BundleError: it is missing, no JSON object, or of another format.
    """
    path = bundle / DOCUMENT
    try:
        document = read_json(path)
    except FileNotFoundError as error:
        raise BundleError(f"{bundle}: no {DOCUMENT} here; give the directory that holds it and {RESOURCES}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); build the bundle again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BundleError(f"{path}: not of format {FORMAT}; build the bundle again with this version of sdbuild")
    return document


def bundle_digest(bundle: Path) -> str:
    """A bundle's identity: the SHA-256 of its `bundle.json`, which names the digest of every model."""
    return file_digest(bundle / DOCUMENT)


def describe_model(resources: Path, name: str) -> Json:
    """What `bundle.json` says of the model `Resources/<name>`: its file, size, digest and interface."""
    path = resources / name
    interface = read_interface(path)
    return {
        "file": name,
        "bytes": tree_size(path),
        "digest": f"sha256:{tree_digest(path)}",
        "specification_version": interface.specification_version,
        "license": interface.license,
        "inputs": [_feature(feature) for feature in interface.inputs],
        "outputs": [_feature(feature) for feature in interface.outputs],
    }


def _feature(feature: Feature) -> Json:
    return {"name": feature.name, "shape": list(feature.shape), "dtype": feature.dtype}


def tokenizer_facts(resources: Path, padding: str) -> Json:
    """What `bundle.json` says of the tokenizer, and of T5's where there is one."""
    names = [VOCABULARY, MERGES, *(name for name in T5_TOKENIZER if (resources / name).is_file())]
    return {
        "padding_token": padding,
        "files": {name: f"sha256:{file_digest(resources / name)}" for name in names},
    }


def textual_inversions(tokenizer: Path, named: Sequence[Mapping[str, Any]]) -> list[Json]:
    """What an app must write in a prompt for each textual inversion.

    Args:
        tokenizer: the folder of the tokenizer that has them.
        named: where each comes from, as the recipe names it.
    """
    tokens = json.loads((tokenizer / INVERSIONS).read_bytes())["tokens"] if named else []
    return [
        {**source, "token": token["token"], "vectors": token["vectors"], "changes": token["changes"]}
        | {"tokens": names_of(token["token"], token["vectors"])}
        for source, token in zip(named, tokens, strict=True)
    ]


def checkpoint_facts(index: Path, other_vae: Path | None = None, *, gives_noise: bool = False) -> Json:
    """What an app must know of the checkpoint and cannot see in the models.

    Args:
        index: the checkpoint's JSON files: `model_index.json`, each component's `config.json`, the scheduler's.
        other_vae: the folder of the VAE that is used instead of the checkpoint's own.
        gives_noise: whether the bundle's UNet computes noise from the velocity that the checkpoint predicts.
    """
    from sdbuild.checkpoints.facts import read_checkpoint_facts

    facts = read_checkpoint_facts(index)
    vae, scheduler = dict(facts.config("vae")), _scheduler(index)
    if other_vae is not None:
        # What it leaves out is as in the checkpoint's own: both have the same latent space.
        vae |= read_json(other_vae / "config.json")
    family = FAMILIES[facts.family or Family.SD1]
    autoencoder = family.autoencoder
    predicted = FLOW_PREDICTION if family.sampling is Sampling.FLOW else facts.prediction_type or "epsilon"
    given = "epsilon" if gives_noise else predicted
    statistics = {name: vae[name] for name in ("latents_mean", "latents_std") if vae.get(name) is not None}
    return {
        "family": facts.family,
        "task": facts.task,
        "guidance_embedding": facts.guidance_embedding,
        "prediction_type": given,
        "checkpoint_prediction_type": predicted,
        # As an app's own scheduler must be set for these models.
        "scheduler": scheduler | ({"prediction_type": given} if gives_noise else {}),
        "vae": {
            # A shift that is null is none; a factor that is missing is the family's.
            "scaling_factor": vae.get("scaling_factor") or autoencoder.scaling_factor,
            "shift_factor": vae.get("shift_factor") or 0.0,
            "latent_channels": vae.get("latent_channels") or autoencoder.channels,
        }
        # Both models apply them, so that the factor is all that a client needs.
        | ({"statistics_in_models": statistics} if statistics else {}),
        "force_zeros_for_empty_prompt": bool(_index(index).get(_ZEROS, family.force_zeros_for_empty_prompt)),
    }


def extensions(facts: Mapping[str, Any], *, controlnets: bool, t2i_adapters: bool) -> list[str]:
    """What an app must feed or compute beyond what the Swift package does: keys of the linter's `EXTENSIONS`."""
    found = [facts["task"]] if facts["task"] in ("inpainting", "instruct-pix2pix") else []
    if controlnets and not FAMILIES[Family(facts["family"] or Family.SD1)].can(Ability.CONTROLNETS):
        found.append("sdxl-controlnet")
    if t2i_adapters:
        found.append("t2i-adapter")
    if facts["guidance_embedding"] is not None:
        found.append("guidance-embedding")
    if facts["prediction_type"] == V_PREDICTION:
        found.append("v-prediction")
    return sorted([*found, *departures(facts["scheduler"], facts["vae"], facts["family"])])


def _scheduler(index: Path) -> Json:
    path = index / "scheduler" / "scheduler_config.json"
    content = read_json(path) if path.is_file() else {}
    return {key: value for key, value in content.items() if key != "_diffusers_version"}


def _index(index: Path) -> Json:
    path = index / "model_index.json"
    content: Json = read_json(path) if path.is_file() else {}
    return content


def license_of(index: Path) -> str:
    """The checkpoint's license, as its model card or license file says; empty when neither does."""
    return read_card(index).license
