"""The original module with the weights that a half-precision package holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPAttention


def round_to_half(module: nn.Module, float32_modules: Sequence[str]) -> bool:
    """Round a module's weights in place as the conversion does.

    Every weight is rounded to half precision, but for those of modules that stay float32. Conversion folds an
    attention's scale into its query weights before it rounds, so there the product is rounded, and divided again.
    CLIP's scale and the factor of its quick GELU stay constants of their own, and are rounded as such.

    Args:
        module: an original module in float32.
        float32_modules: dotted paths of the submodules that stay float32.

    Returns:
        Whether any weight changed; those of a half-precision checkpoint change at most where a scale was folded in.
    """
    kept = tuple(f"{path}." for path in float32_modules)
    scales = _query_scales(module)
    changed = False
    with torch.no_grad():
        for name, weight in (*module.named_parameters(), *module.named_buffers()):
            if weight.is_floating_point() and not name.startswith(kept):
                rounded = _rounded(weight, scales.get(name, 1.0))
                changed = changed or not torch.equal(rounded, weight)
                weight.copy_(rounded)
    return _round_constants(module, kept) or changed


def _round_constants(module: nn.Module, kept: tuple[str, ...]) -> bool:
    """Round the scalars that stand in the program beside the weights; returns whether any changed."""
    changed = False
    for path, part in module.named_modules():
        if f"{path}.".startswith(kept):
            continue
        if isinstance(part, CLIPAttention):
            half = _half(part.scale)
            changed = changed or half != part.scale
            part.scale = half
        elif isinstance(part, QuickGELUActivation):
            part.forward = _half_quick_gelu
            changed = True
    return changed


def _half_quick_gelu(hidden: Tensor) -> Tensor:
    """Multiply by sigmoid(1.702 x), after Hendrycks and Gimpel, Gaussian Error Linear Units, 2016."""
    return hidden * torch.sigmoid(_half(1.702) * hidden)


def _half(value: float) -> float:
    return float(torch.tensor(value).half())


def _rounded(weight: Tensor, scale: float) -> Tensor:
    return (weight * scale).half().float() / scale


def _query_scales(module: nn.Module) -> dict[str, float]:
    return {
        f"{path}.to_q.{kind}": attention.scale
        for path, attention in module.named_modules()
        if isinstance(attention, Attention)
        for kind in ("weight", "bias")
    }
