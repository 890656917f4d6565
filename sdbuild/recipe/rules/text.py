"""Rules on prompts: their length, words of their own, other languages."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.families import Ability, Family
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import Component

_MULTILINGUAL_TOKENS = 256
_TOKENS = 77
_ENCODERS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)


@rule(
    "text-sequence-too-long",
    reason="CLIP has learnt that many positions and no more; there is no embedding for the next token.",
    source="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision",
)
def _text_sequence_too_long(context: Context) -> Iterator[Finding]:
    """The text is no longer than the text encoders' position embeddings."""
    recipe = context.recipe
    for component in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2):
        config = context.facts.config(component) if context.facts is not None else {}
        positions = int(config.get("max_position_embeddings") or 77)
        if component in recipe.components and recipe.text_sequence_length > positions:
            message = f"{recipe.text_sequence_length} tokens, but `{component}` has {positions} positions"
            yield Finding(("text_sequence_length",), message, f"write {positions} or less")
            return


@rule(
    "text-length-sd3",
    reason="The Swift package makes SD 3's text of 77 states of both CLIP encoders and 77 of T5.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusion3Pipeline",
)
def _text_length_sd3(context: Context) -> Iterator[Finding]:
    """SD 3's text has 77 tokens."""
    length = context.recipe.text_sequence_length
    if context.family is Family.SD3 and length < _TOKENS:
        message = f"{length} tokens for {context.title}"
        yield Finding(("text_sequence_length",), message, f"write {_TOKENS}, or leave it out")


@rule(
    "multilingual-projection",
    reason="The Swift package embeds texts as 256 tokens for it, in its pipeline for SD 1 and 2 alone, from iOS 17 on.",
    source="the Swift sources of apple/ml-stable-diffusion, MultilingualTextEncoder",
)
def _multilingual(context: Context) -> Iterator[Finding]:
    """A multilingual projection is for SD 1.x and SD 2.x, 256 tokens, and iOS 17, macOS 14 or newer."""
    recipe, place = context.recipe, ("multilingual_projection",)
    if recipe.multilingual_projection is None:
        return
    if not context.can(Ability.MULTILINGUAL_PROJECTION):
        yield Finding(place, "a multilingual projection with another family than SD 1 and 2", "remove it")
    if recipe.text_sequence_length != _MULTILINGUAL_TOKENS:
        message = f"{recipe.text_sequence_length} tokens with a multilingual projection"
        yield Finding(("text_sequence_length",), message, f"write `text_sequence_length: {_MULTILINGUAL_TOKENS}`")
    if context.target.os_generation < 17:
        message = f"a multilingual projection for `{context.target.name}`"
        yield Finding(place, message, "use a target with iOS 17 or macOS 14")


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
    if not context.can(Ability.TEXTUAL_INVERSIONS):
        yield Finding(place, f"textual inversions with an {context.title} checkpoint", "remove them")
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
