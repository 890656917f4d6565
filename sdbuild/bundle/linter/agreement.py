"""What only several models together can get wrong."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.bundle.features import Interface
from sdbuild.bundle.linter.chunks import joined
from sdbuild.bundle.linter.contents import Contents
from sdbuild.bundle.linter.models import Sizes, lint_numbers, numbered
from sdbuild.bundle.linter.violation import Violation
from sdbuild.interface.contract import Conditioners, Numbered
from sdbuild.interface.swift.rows import CONDITIONERS, REQUIRED

_REFINER_IDS, _BASE_IDS = 5, 6
# The states of both encoders, which the package fills up with 2048 zeros to 4096, and their pooled states
# (StableDiffusion3Pipeline.swift, encodePrompt and generateConditioning).
_SD3_WIDTH, _SD3_TOKENS = 2048, 77


def lint_presence(contents: Contents) -> Iterator[Violation]:
    """Every pipeline has models that it cannot do without."""
    for alternatives in REQUIRED[contents.kind]:
        if not any(contents.has(name) for name in alternatives):
            yield Violation("missing-model", "Resources", f"no {' or '.join(alternatives)}")
    for each in CONDITIONERS:
        found = [name for name in contents.paths if name.startswith(each.folder)]
        if found and contents.row(each.unet) and not contents.has(each.unet):
            yield Violation("missing-model", "Resources", f"no {each.unet}, which {', '.join(found)} need")


def lint_conditioners(contents: Contents) -> Iterator[Violation]:
    """Every ControlNet's outputs are the residual inputs of ControlledUnet, every T2I-Adapter's of AdaptedUnet."""
    for each in CONDITIONERS:
        unet = _interface(contents, each.unet)
        accepted = numbered(unet.inputs, Numbered(each.word, "inputs")) if unet is not None else None
        if unet is not None and accepted is not None:
            yield from lint_numbers(each.unet, accepted, each.word, each.rule)
            yield from _lint_batch(unet, accepted, each)
        for name, interface in contents.interfaces.items():
            if name.startswith(each.folder):
                yield from _lint_given(name, interface, accepted, each)


def _interface(contents: Contents, unet: str) -> Interface | None:
    """What a UNet, whole or as a pair, takes and gives; None where nothing loads it, or it is not there."""
    row = contents.row(unet)
    if row is None:
        return None
    pair = contents.pair(unet)
    return joined(*pair, row) if pair else contents.interfaces.get(unet)


def _lint_batch(unet: Interface, accepted: dict[str, tuple[int, ...]], each: Conditioners) -> Iterator[Violation]:
    """What is repeated for each row of a UNet's batch has as many rows."""
    batch = {feature.shape[0] for feature in unet.inputs if feature.name == "sample" and feature.shape}
    for tensor, shape in accepted.items():
        if each.repeated and batch and {*shape[:1]} != batch:
            what = f"shape {list(shape)}, but sample has batch {min(batch)}"
            yield Violation("batch", f"{each.unet}, {tensor}", what)


def _lint_given(
    name: str, interface: Interface, accepted: dict[str, tuple[int, ...]] | None, each: Conditioners
) -> Iterator[Violation]:
    given = numbered(interface.outputs, Numbered(each.word, "outputs"))
    yield from lint_numbers(name, given, each.word, each.rule)
    others = [feature.name for feature in interface.outputs if feature.name not in given]
    if others:
        yield Violation(each.rule, name, f"outputs that are no {each.rule}: {', '.join(others)}")
    if accepted is None:
        return
    for tensor in sorted({*accepted, *given}):
        if _row(given, tensor, each) != _row(accepted, tensor, each):
            what = f"{_shape(given, tensor)}, {each.unet} takes {_shape(accepted, tensor)}"
            yield Violation(each.rule, f"{name}, {tensor}", what)


def _row(shapes: dict[str, tuple[int, ...]], tensor: str, each: Conditioners) -> tuple[int, ...] | None:
    """What both sides have in common of a shape: all of it, or all but the batch."""
    shape = shapes.get(tensor)
    return shape[1:] if shape is not None and each.repeated else shape


def lint_sizes(contents: Contents, sizes: Sizes) -> Iterator[Violation]:
    """Sizes that follow from each other."""
    for pixels, latents, side in (("H", "h", "height"), ("W", "w", "width")):
        picture, latent = sizes.get(pixels), sizes.get(latents)
        if picture is not None and latent is not None and picture != 8 * latent:
            where = f"{sizes.places[pixels]} and {sizes.places[latents]}"
            yield Violation("image-size", where, f"picture {side} {picture} is not 8 times {latent}")
    batch = sizes.get("B")
    if batch is not None and batch not in (1, 2):
        yield Violation("batch", sizes.places["B"], f"batch {batch}, must be 1 or 2")
    if contents.kind == "sdxl":
        yield from _lint_xl(contents, sizes)
    if contents.kind == "sd3":
        yield from _lint_sd3(sizes)


def _lint_xl(contents: Contents, sizes: Sizes) -> Iterator[Violation]:
    first, second = sizes.get("D1"), sizes.get("D2")
    ids = sizes.get("T")
    # Without the first text encoder the bundle is a refiner's own.
    expected = _BASE_IDS if contents.has("TextEncoder") else _REFINER_IDS
    if ids is not None and ids != expected:
        yield Violation("time-ids", sizes.places["T"], f"{ids} values, must be {expected}")
    if (refiner_ids := sizes.get("TR")) not in (None, _REFINER_IDS):
        yield Violation("time-ids", sizes.places["TR"], f"{refiner_ids} values, must be {_REFINER_IDS}")
    if second is None:
        return
    base_width = (first or 0) + second if contents.has("TextEncoder") else second
    for letter, width in (("X", base_width), ("XR", second)):
        found = sizes.get(letter)
        if found is not None and found != width and not (letter == "X" and first is None and expected == _BASE_IDS):
            yield Violation("text-width", sizes.places[letter], f"width {found}, the text encoders give {width}")


def _lint_sd3(sizes: Sizes) -> Iterator[Violation]:
    for letters, what in ((("D1", "D2"), "states"), (("P1", "P"), "pooled states")):
        widths = [width for letter in letters if (width := sizes.get(letter)) is not None]
        if len(widths) == len(letters) and sum(widths) != _SD3_WIDTH:
            message = f"{what} {' and '.join(map(str, widths))} wide, together {sum(widths)}, must be {_SD3_WIDTH}"
            yield Violation("text-width", sizes.places[letters[1]], message)
    if (tokens := sizes.get("L")) not in (None, _SD3_TOKENS):
        yield Violation("shape", sizes.places["L"], f"{tokens} tokens, must be {_SD3_TOKENS}")
    states = sizes.get("S")
    if states is not None and states < _SD3_TOKENS:
        yield Violation("shape", sizes.places["S"], f"{states} text states, must be {_SD3_TOKENS} or more")


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "none"
