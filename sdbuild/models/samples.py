"""Seeded inputs that look like what a pipeline feeds: text states, noised latents, real timesteps, pictures.

Random normals everywhere would hide the faults that matter: the phase of the timestep embedding is lost at large
steps, and a decoder overflows at the scale of real latents only. All values are representable in half precision where
the input is declared so, because that is what reaches the model on a device.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.tensors import TensorSpec

Array = NDArray[np.generic]
_T5_PADDING, _T5_END = 0, 1
TRAIN_STEPS = 1000
"""Timesteps of the training schedule of every Stable Diffusion family."""


@dataclass(frozen=True)
class Scene:
    """What surrounds a component in its pipeline.

    Attributes:
        vocabulary: number of tokens of the text encoder; CLIP's last two are start and end of text.
        new_tokens: how many textual inversions have added to them.
        scaling_factor: latents are multiplied by this after encoding (0.18215 for Stable Diffusion 1 and 2).
        shift_factor: what is taken off latents before (0.0609 for Stable Diffusion 3).
        text_states: hidden states of some prompts, (prompts, tokens, width), the empty prompt first; None where the
            recipe has no text encoder, then normals of unit scale stand in.
        pooled: pooled text embeddings of the same prompts, (prompts, width), or None.
        alphas_cumprod: the share of signal that is left at each training step, length 1000.
        t5: whether the text encoder is T5, whose tokens differ from CLIP's.
    """

    vocabulary: int = 49408
    new_tokens: int = 0
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    text_states: NDArray[np.float32] | None = None
    pooled: NDArray[np.float32] | None = None
    alphas_cumprod: NDArray[np.float64] | None = None
    t5: bool = False


def diffusion_timesteps(configuration: Mapping[str, Any], count: int) -> tuple[float, ...]:
    """`timesteps`, whatever the checkpoint's `scheduler_config.json` says."""
    return timesteps(count)


def timesteps(count: int) -> tuple[int, ...]:
    """`count` training steps spread over the whole schedule, 1 and 981 (the first of 50 sampling steps) included."""
    if count == 1:
        return (501,)
    return tuple(int(step) for step in np.linspace(1, 981, count).round())


def flow_timesteps(configuration: Mapping[str, Any], count: int) -> tuple[float, ...]:
    """`count` steps of a flow matching schedule from its last to its first: 1000 times the share of noise.

    The first and the last of 28 sampling steps and others between them, moved towards noise as the checkpoint's
    `scheduler_config.json` says: s → a·s / (1 + (a − 1)·s) for its shift a.

    Source: Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, 2024, 5.3.2.
    """
    shift, steps = float(configuration.get("shift", 1.0)), int(configuration.get("num_train_timesteps", TRAIN_STEPS))
    shares = np.linspace(1 / 28, 1, count) if count > 1 else np.array([0.5])
    moved = shift * shares / (1 + (shift - 1) * shares)
    return tuple(float(share) for share in (steps * moved).astype(np.float32))


def stable_diffusion_schedule() -> NDArray[np.float64]:
    """Cumulative signal share of the scaled-linear schedule, beta from 0.00085 to 0.012 over 1000 steps.

    Source: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (released weights).
    """
    return training_schedule({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})


def training_schedule(configuration: Mapping[str, Any]) -> NDArray[np.float64]:
    """Cumulative signal share by a checkpoint's `scheduler_config.json`, or of the released schedule."""
    steps = int(configuration.get("num_train_timesteps", TRAIN_STEPS))
    first, last = configuration.get("beta_start"), configuration.get("beta_end")
    if first is None or last is None:
        return stable_diffusion_schedule()
    power = 2 if configuration.get("beta_schedule") == "scaled_linear" else 1
    betas = np.linspace(first ** (1 / power), last ** (1 / power), steps, dtype=np.float64) ** power
    return np.cumprod(1.0 - betas, dtype=np.float64)


def samples(
    specs: Sequence[TensorSpec], scene: Scene, *, steps: Sequence[float], seed: int = 0
) -> list[dict[str, Array]]:
    """Inputs for one model, one set for each timestep.

    Args:
        specs: the model's inputs.
        scene: what surrounds the model.
        steps: training timesteps; models without a `timestep` input get as many different sets.
        seed: selects the set; the same seed gives the same values on every machine.

    Returns:
        For each step, input name → array with the shape and the dtype of its spec.

    Raises:
        KeyError: an input that no pipeline feeds.
    """
    return [
        {spec.name: _cast(_value(spec, scene, step, _generator(seed, spec.name, step)), spec) for spec in specs}
        for step in steps
    ]


def _generator(seed: int, name: str, step: float) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(f"{name}@{step}".encode())]))


def _cast(values: NDArray[np.float32], spec: TensorSpec) -> Array:
    if values.shape != spec.shape:
        raise ValueError(f"a sample of {spec.name} has the shape {values.shape}, the model wants {spec.shape}")
    return values.astype(spec.dtype)


def _value(spec: TensorSpec, scene: Scene, step: float, rng: np.random.Generator) -> NDArray[np.float32]:
    shape = spec.shape
    match spec.name:
        case "input_ids":
            return _t5_token_ids(shape, scene, step) if scene.t5 else _token_ids(shape, scene, rng)
        case "attention_mask":
            # The Swift package's mask is 1 for padding.
            return np.where(_t5_token_ids(shape, scene, step) == _T5_PADDING, 1, 0).astype(np.float32)
        case "sample":
            return _denoisers_sample(shape, scene, step, rng)
        case "latent_image_embeddings":
            return _noised_latents(shape, 1 - step / TRAIN_STEPS, step / TRAIN_STEPS, rng)
        case "timestep":
            return np.full(shape, step, np.float32)
        case "encoder_hidden_states" | "token_level_text_embeddings":
            return _text_states(shape, scene, rng)
        case "text_embeds" | "pooled_text_embeddings":
            return _pooled(shape, scene, rng)
        case "time_ids":
            return _time_ids(shape, spec)
        case "controlnet_cond" | "images":
            return ((_picture(shape, rng, channels_last=spec.name == "images") + 1) / 2).astype(np.float32)
        case "adapter_cond":
            return _edges(shape, rng)
        case "x" | "clip_input":
            return _picture(shape, rng)
        case "z":
            return (_smooth(shape, rng) / scene.scaling_factor + scene.shift_factor).astype(np.float32)
        case "adjustment":
            return np.zeros(shape, np.float32)
        case "timestep_cond" | "nlcontextualembeddings_output":
            return rng.standard_normal(shape, np.float32)
        case name if name.startswith("additional_residual_"):
            return (0.3 * rng.standard_normal(shape)).astype(np.float32)
        case name if name.startswith("additional_feature_"):
            # The same for every row of the batch, as in every pipeline.
            single = 0.3 * rng.standard_normal((1, *shape[1:]))
            return np.repeat(single, shape[0], axis=0).astype(np.float32)
    raise KeyError(f"no pipeline feeds an input called {spec.name!r}")


def _token_ids(shape: tuple[int, ...], scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """Start of text, some words, and end of text to the end, as CLIP's tokenizer pads."""
    batch, length = shape
    ids = np.full(shape, scene.vocabulary - 1, np.float32)
    ids[:, 0] = scene.vocabulary - 2
    words = min(length - 2, 5 + int(rng.integers(0, max(length // 2, 1))))
    ids[:, 1 : 1 + words] = rng.integers(0, scene.vocabulary - 2, (batch, words))
    if scene.new_tokens:
        new = scene.vocabulary + rng.permutation(scene.new_tokens)[: -(-words // 2)]
        ids[:, 1 : 1 + 2 * len(new) : 2] = new
    return ids


def _t5_token_ids(shape: tuple[int, ...], scene: Scene, step: float) -> NDArray[np.float32]:
    """Words, end of text and padding, as T5's tokenizer gives them; of one step always the same."""
    _, length = shape
    rng = _generator(0, "t5", step)
    words = min(length - 1, 3 + int(rng.integers(0, length)))
    ids = np.full(shape, _T5_PADDING, np.float32)
    ids[:, :words] = rng.integers(_T5_END + 2, scene.vocabulary, (1, words))
    ids[:, words] = _T5_END
    return ids


def _denoisers_sample(
    shape: tuple[int, ...], scene: Scene, step: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noised latents, and what some UNets take beside them: a mask (1 where to draw), latents of a known picture."""
    batch, channels, height, width = shape
    schedule = scene.alphas_cumprod if scene.alphas_cumprod is not None else stable_diffusion_schedule()
    share = float(schedule[min(int(step), len(schedule) - 1)])
    signal, noise = share**0.5, (1 - share) ** 0.5
    if channels not in (8, 9):
        return _noised_latents(shape, signal, noise, rng)
    parts = [_noised_latents((batch, 4, height, width), signal, noise, rng)]
    if channels == 9:
        mask = np.zeros((batch, 1, height, width), np.float32)
        mask[..., height // 4 : height // 2, width // 4 :] = 1
        parts.append(mask)
    known = _smooth((1, 4, height, width), rng)
    return np.concatenate([*parts, np.repeat(known, batch, axis=0)], axis=1).astype(np.float32)


def _noised_latents(
    shape: tuple[int, ...], signal: float, noise: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    # Both halves of a guided batch carry the same latents, as in every pipeline.
    single = (1, *shape[1:])
    noised = signal * _smooth(single, rng) + noise * rng.standard_normal(single)
    return np.repeat(noised, shape[0], axis=0).astype(np.float32)


def _text_states(shape: tuple[int, ...], scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """(batch, width, 1, tokens): the empty prompt and a prompt where there are real ones."""
    batch, width, _, length = shape
    if scene.text_states is None or scene.text_states.shape[1:] != (length, width):
        return rng.standard_normal(shape, np.float32)
    chosen = _rows(scene.text_states, batch, rng)
    return np.ascontiguousarray(chosen.transpose(0, 2, 1)[:, :, None, :])


def _pooled(shape: tuple[int, ...], scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    if scene.pooled is None or scene.pooled.shape[1] != shape[1]:
        return rng.standard_normal(shape, np.float32)
    return _rows(scene.pooled, shape[0], rng).reshape(shape)


def _rows(values: NDArray[np.float32], batch: int, rng: np.random.Generator) -> NDArray[np.float32]:
    conditional = int(rng.integers(1, len(values)))
    return values[[conditional]] if batch == 1 else values[[0] * (batch // 2) + [conditional] * (batch - batch // 2)]


def _time_ids(shape: tuple[int, ...], spec: TensorSpec) -> NDArray[np.float32]:
    """SDXL's micro-conditioning: original size, crop, target size; the refiner's ends in an aesthetic score.

    Source: Podell et al., SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis, 2023, 2.2.
    """
    rows: list[list[float]] = [[1024, 1024, 0, 0, 1024, 1024]] * shape[0]
    if shape[1] == 5:
        rows = [[1024, 1024, 0, 0, 2.5 if index < shape[0] // 2 else 6.0] for index in range(shape[0])]
    values = np.array(rows, np.float32)
    if values.shape != shape:
        raise ValueError(f"{spec.name} of shape {shape} is neither SDXL's (6 values) nor its refiner's (5 values)")
    return values


def _picture(shape: tuple[int, ...], rng: np.random.Generator, *, channels_last: bool = False) -> NDArray[np.float32]:
    """A picture in ±1: smooth areas, an edge, a little grain."""
    if channels_last:
        batch, height, width, channels = shape
        return np.ascontiguousarray(_picture((batch, channels, height, width), rng).transpose(0, 2, 3, 1))
    values = 0.6 * _smooth(shape, rng) + 0.05 * rng.standard_normal(shape)
    values[..., shape[-1] // 3 :] += 0.5
    return np.clip(values, -1, 1).astype(np.float32)


def _edges(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Thin white outlines on black, as edge detectors draw them: where a smooth picture passes from shade to shade."""
    batch, channels, height, width = shape
    shades = np.floor(2 * _smooth((batch, 1, height, width), rng))
    below, beside = np.roll(shades, -1, axis=2), np.roll(shades, -1, axis=3)
    outlines = ((shades != below) | (shades != beside)).astype(np.float32)
    return np.repeat(outlines, channels, axis=1)


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Normals of unit variance with most of their energy in low frequencies, as natural pictures have."""
    *lead, height, width = shape
    fine = rng.standard_normal(shape)
    spectrum = np.fft.rfft2(fine)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    shaped: NDArray[np.float64] = np.fft.irfft2(spectrum / (radius + 2 / max(height, width)), s=(height, width))
    spread: NDArray[np.float64] = shaped.reshape(*lead, -1).std(axis=-1)[..., None, None]
    result: NDArray[np.float64] = shaped / np.maximum(spread, 1e-12)
    return result
