"""Tensors judged by names and shapes: which a network wants, which it can do without, and which make it another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from sdbuild.checkpoints import sd3_topology, topology
from sdbuild.checkpoints.account.entry import Entry, Kind, Use
from sdbuild.checkpoints.account.foreign import foreign
from sdbuild.checkpoints.account.networks import CONTROLNET, T2I_ADAPTER, TINY_VAE, TRANSFORMER, UNET, VAE
from sdbuild.checkpoints.account.settings import Class, Config, with_defaults
from sdbuild.checkpoints.account.towers import CLIP_TEXT, CLIP_VISION, SAFETY_CHECKER, T5
from sdbuild.checkpoints.float8_names import is_beside, why_beside
from sdbuild.checkpoints.header import TensorHeader
from sdbuild.checkpoints.tiny_autoencoder import tiny_shapes

Shapes = Mapping[str, tuple[int, ...]]
Headers = Mapping[str, TensorHeader]

_BUFFER = "a buffer that older versions of the library saved; it follows from the configuration"
_WHOLE_CLIP = "belongs to the whole CLIP of which this is one tower"
_DECODER = "is T5's decoder's, and the encoder alone is used"
_SAME = "is stored twice; the other one is used"
_BEYOND = "is a layer beyond the configuration's num_hidden_layers, which is never reached"
_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_OPEN = 0
"""A size that the file itself says."""

FLOATING = ("F16", "BF16", "F32", "F64")
_FLOAT8 = ("F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Network:
    """How a class's tensors are told.

    Attributes:
        known: its configuration.
        wanted: the resolved configuration → every tensor's name and shape.
        rename: a stored name → the name in `wanted`, where older files have another.
        spare: a stored name and the resolved configuration → why the tensor is not needed; None where it is.
    """

    known: Class
    wanted: Callable[[Config], Shapes]
    rename: Callable[[str], str] = lambda name: name
    spare: Callable[[str, Config], str | None] = lambda name, config: None


def _vae_name(name: str) -> str:
    path, _, kind = name.rpartition(".")
    block, _, layer = path.rpartition(".")
    if "attentions" in block.split("."):
        return f"{block}.{_VAE_ATTENTION.get(layer, layer)}.{kind}"
    return name


def _clip_name(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def _clip_spare(name: str, config: Config) -> str | None:
    if name.endswith("position_ids"):
        return _BUFFER
    if name.endswith("logit_scale") or name.startswith(("vision_model.", "visual_projection.")):
        return _WHOLE_CLIP
    if name == "text_projection.weight" and not _is_projected(config):
        return "projects a pooled state that this pipeline does not use"
    parts = _clip_name(name).split(".")
    if parts[1:3] == ["encoder", "layers"] and parts[3].isdigit() and int(parts[3]) >= config["num_hidden_layers"]:
        return _BEYOND
    return None


def _is_projected(config: Config) -> bool:
    return "CLIPTextModelWithProjection" in (config.get("architectures") or ())


def _clip_wanted(config: Config) -> Shapes:
    architecture = "CLIPTextModelWithProjection" if _is_projected(config) else "CLIPTextModel"
    shapes = dict(topology.clip_text({**config, "architectures": [architecture]}))
    shapes.pop("text_model.embeddings.position_ids", None)
    return shapes


def _checker_wanted(config: Config) -> Shapes:
    shapes = dict(topology.safety_checker(config))
    shapes.pop("vision_model.vision_model.embeddings.position_ids")
    # The number of concepts is the weights' own.
    return {name: (_OPEN, *shape[1:]) if _is_of_concepts(name) else shape for name, shape in shapes.items()}


def _is_of_concepts(name: str) -> bool:
    return name.removesuffix("_weights") in ("concept_embeds", "special_care_embeds")


def _checker_name(name: str) -> str:
    if name.startswith("vision_model.") and not name.startswith("vision_model.vision_model."):
        return f"vision_model.{name}"
    return name


def _t5_spare(name: str, config: Config) -> str | None:
    if name.startswith(("decoder.", "lm_head.")):
        return _DECODER
    return _SAME if name == "encoder.embed_tokens.weight" else None


NETWORKS: dict[str, Network] = {
    "UNet2DConditionModel": Network(UNET, topology.unet),
    "ControlNetModel": Network(CONTROLNET, topology.controlnet),
    "AutoencoderKL": Network(VAE, topology.vae, _vae_name),
    "AutoencoderTiny": Network(TINY_VAE, tiny_shapes),
    "SD3Transformer2DModel": Network(TRANSFORMER, sd3_topology.transformer),
    "T2IAdapter": Network(T2I_ADAPTER, topology.t2i_adapter),
    "CLIPTextModel": Network(CLIP_TEXT, _clip_wanted, _clip_name, _clip_spare),
    "StableDiffusionSafetyChecker": Network(
        SAFETY_CHECKER,
        _checker_wanted,
        _checker_name,
        lambda name, config: _BUFFER if name.endswith("position_ids") else None,
    ),
    "T5EncoderModel": Network(T5, sd3_topology.t5, spare=_t5_spare),
}
_ALIASES = {
    **dict.fromkeys(("CLIPTextModelWithProjection", "CLIPModel"), "CLIPTextModel"),
    **dict.fromkeys(("T5ForConditionalGeneration", "T5Model"), "T5EncoderModel"),
}


def network(class_name: str) -> Network | None:
    """How that class's tensors are told; None for a class that cannot be built."""
    return NETWORKS.get(_ALIASES.get(class_name, class_name))


def resolved(config: Config, known: Network) -> dict[str, object]:
    """The configuration with defaults, towers' nested parts laid over."""
    if known.known is CLIP_TEXT and isinstance(config.get("text_config"), Mapping):
        config = {**config, **config["text_config"]}
    whole = with_defaults(config, known.known)
    if known.known is SAFETY_CHECKER:
        nested = {**(config.get("vision_config_dict") or {}), **(config.get("vision_config") or {})}
        whole["vision_config"] = with_defaults(nested, CLIP_VISION)
    return whole


def judge_tensors(place: str, tensors: Headers, config: Config, known: Network) -> Iterator[Entry]:
    """What becomes of each tensor, and which are missing.

    Args:
        place: the file, or the set of shards, in the source.
        tensors: what the file's header says.
        config: the network's `config.json`.
        known: the network.
    """
    whole = resolved(config, known)
    try:
        wanted = known.wanted(whole)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"the settings contradict each other: no network can be built of them ({error!r}); download it again"
        yield Entry(place, Kind.SETTING, known.known.name, Use.REFUSED, reason)
        return
    found: set[str] = set()
    strange: list[str] = []
    for name, tensor in tensors.items():
        if is_beside(name):
            yield Entry(place, Kind.TENSOR, name, *why_beside(name))
            continue
        inner = known.rename(name)
        if inner in wanted and not known.spare(name, whole):
            found.add(inner)
            # Each concept has a vector and a threshold.
            beside = tensors.get(name.removesuffix("_weights")) if _OPEN in wanted[inner] else None
            count = beside.shape[0] if beside is not None and beside.shape else 0
            shape = tuple(size or count for size in wanted[inner])
            yield Entry(place, Kind.TENSOR, name, *_fitting(tensor, shape))
        else:
            strange += [] if inner in wanted else [name]
            yield Entry(place, Kind.TENSOR, name, *_spare(name, whole, known))
    for name in wanted:
        if name not in found and not (name == "shared.weight" and "encoder.embed_tokens.weight" in tensors):
            close = get_close_matches(name, strange, n=1, cutoff=0.8)
            hint = f"; the file has `{close[0]}`" if close else ""
            yield Entry(place, Kind.TENSOR, name, Use.REFUSED, f"is missing{hint}; download the file again")


def _spare(name: str, config: Config, known: Network) -> tuple[Use, str]:
    if reason := known.spare(name, config):
        return Use.HARMLESS, reason
    if reason := foreign(name):
        return Use.REFUSED, reason
    return Use.WARNED, f"{known.known.name} of this configuration has no such tensor; like the library, it is left out"


def of_type(tensor: TensorHeader) -> tuple[Use, str]:
    """What becomes of a weight by its type alone."""
    if tensor.dtype in (*FLOATING, *_FLOAT8):
        return Use.USED, ""
    return Use.REFUSED, f"is stored as {tensor.dtype}; weights are {', '.join((*FLOATING, *_FLOAT8))}"


def _fitting(tensor: TensorHeader, shape: tuple[int, ...]) -> tuple[Use, str]:
    use, reason = of_type(tensor)
    if use is Use.REFUSED:
        return use, reason
    if [size for size in tensor.shape if size != 1] != [size for size in shape if size != 1]:
        return Use.REFUSED, f"has the shape {list(tensor.shape)}, the configuration asks for {list(shape)}"
    return Use.USED, ""
