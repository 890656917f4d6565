"""What to do about a palettized model that lost too much: the tensors that lost most, and the bits that would pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

_DB_A_BIT = 6.02  # a uniform quantizer's; tables of optimal values keep a little more at few bits
_SHOWN = 8


def worst_tensors(artifact: Path) -> Iterator[str]:
    """The tensors whose values lost most, of a quantized artifact; nothing of artifacts that do not tell."""
    report = artifact / "quantization.json"
    if not report.is_file():
        return
    tensors = json.loads(report.read_text(encoding="utf-8"))["tensors"]
    lossy = [tensor for tensor in tensors if tensor["signal_to_noise_db"] is not None]
    if not lossy:
        return
    yield "the tensors that lost most:"
    for tensor in sorted(lossy, key=lambda entry: entry["signal_to_noise_db"])[:_SHOWN]:
        shape = "×".join(map(str, tensor["shape"]))
        yield f"  {tensor['name']} ({shape}, {tensor['bits']} bits): {tensor['signal_to_noise_db']:.1f} dB"


def what_would_pass(setting: str, bits: int, figure: float, gates: Mapping[int, float]) -> str:
    """The settings that would let a model pass.

    Args:
        setting: the component's name in a recipe.
        bits: what its weights have now.
        figure: the signal that was measured, in dB.
        gates: bits → the least signal that is accepted with them, in dB.
    """
    passing = [more for more in sorted(gates) if more > bits and figure + _DB_A_BIT * (more - bits) >= gates[more]]
    ways = []
    if passing:
        expected = figure + _DB_A_BIT * (passing[0] - bits)
        ways.append(
            f"quantization: {{{setting}: {passing[0]}}} should give about {expected:.0f} dB, where "
            f"{gates[passing[0]]:.0f} are asked for"
        )
    ways.append(f"quantization: {{{setting}: none}} keeps half precision")
    accepted = int(figure) if figure > 0 else 0
    ways.append(f"verify: {{{setting}: {{palettized_db: {accepted}}}}} accepts this loss")
    return "what would pass: " + "; ".join(ways)


def lowest(figures: Mapping[str, Mapping[str, float]]) -> float:
    """The lowest signal of a palettized model's outputs by a verification's figures, in dB."""
    return min(float(entry["palettized_db"]) for entry in figures.values())
