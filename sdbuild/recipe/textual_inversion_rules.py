"""Preflight rules on textual inversions."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.recipe.rule import Context, Finding, Rule, rule
from sdbuild.recipe.rules import family_of
from sdbuild.recipe.vocabulary import Component

_ENCODERS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)


@rule(
    "textual-inversion-unsupported",
    reason="A textual inversion is rows of every text encoder's token embedding, and SD 3's T5 has other tokens.",
    source="Gal et al. 2022, An Image is Worth One Word; https://huggingface.co/docs/diffusers/using-diffusers/"
    "textual_inversion_inference",
)
def _unsupported(context: Context) -> Iterator[Finding]:
    """Textual inversions are for SD 1.x, SD 2.x and SDXL, in a recipe with a text encoder."""
    recipe, place = context.recipe, ("textual_inversions",)
    if not recipe.textual_inversions:
        return
    if family_of(context) == "sd3":
        yield Finding(place, "textual inversions with an SD 3 checkpoint", "remove them")
    elif not {*_ENCODERS} & {*recipe.components}:
        help_ = "remove them, or add `text_encoder` to the components"
        yield Finding(place, "textual inversions without a text encoder", help_)


@rule(
    "repeated-token",
    reason="Two embeddings cannot be one word; the Swift package reads prompts in lower case.",
    source="the Swift sources of apple/ml-stable-diffusion, BPETokenizer",
)
def _repeated_token(context: Context) -> Iterator[Finding]:
    """Each textual inversion has a token of its own, whatever its capitals."""
    seen: set[str] = set()
    for index, inversion in enumerate(context.recipe.textual_inversions):
        token = (inversion.token or "").lower()
        if token and token in seen:
            place = ("textual_inversions", index, "token")
            yield Finding(place, f"the token `{inversion.token}` again", "name another token")
        seen.add(token)


TEXTUAL_INVERSION_RULES: tuple[Rule, ...] = (_unsupported, _repeated_token)
