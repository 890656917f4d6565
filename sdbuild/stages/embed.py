"""The embed stage: a pipeline with textual inversions, as if its text encoders had been trained with these words.

Run once for the tokenizer that the bundle holds, then for each text encoder. Inputs: ``checkpoint``, the files of the
tokenizer or of the text encoder, and ``embedding-N``, a folder with an embedding's file; for a text encoder also
``tokenizer``, the result of the first. Parameters: ``component``, ``encoders`` (the pipeline's CLIP encoders); for the
tokenizer ``tokens``: role → the word to write in prompts, or null for the one that the file names.

A tokenizer's result has the new vocabulary and merges, and says in ``textual_inversions.json`` what each new entry is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle.new_tokens import NewTokens, Vector
from sdbuild.bundle.tokenizer import END, INVERSIONS, read_tokenizer
from sdbuild.checkpoints.files import is_card
from sdbuild.errors import SdbuildError
from sdbuild.interface.swift.files import MERGES, VOCABULARY
from sdbuild.recipe.tokens import TokenError, check_token
from sdbuild.stages import Stage
from sdbuild.stages.files import place
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """Which words are added to what.

    Attributes:
        component: the tokenizer or text encoder.
        encoders: the pipeline's CLIP encoders.
        tokens: for the tokenizer, role of an embedding → the word to write in prompts; None for the file's own.
    """

    component: str
    encoders: tuple[str, ...]
    tokens: Mapping[str, str | None] | None = None


STAGE = Stage(
    name="embed",
    version=1,
    parameters=Parameters,
    title="the checkpoint's {} with textual inversions",
    group="make textual inversions words of tokenizer and text encoders",
    reads="a tokenizer's or a text encoder's files, textual inversions",
    result="the same with further words",
    follows=("source", "fuse"),
)

_EMBEDDING = "embedding-"
_WEIGHTS = "model.safetensors"
# Of a tokenizer, what is written anew, or would say something else than that.
_REPLACED = (VOCABULARY, MERGES, "tokenizer.json", "added_tokens.json")


class EmbedError(SdbuildError):
    """An embedding cannot be a word of the pipeline."""


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Fill `out` with the tokenizer's or the text encoder's files.

    Raises:
        ModelError: an embedding is damaged, of an unknown kind, or was trained for another family.
        BundleError: the vocabulary has a token already, or is none.
        EmbedError: an embedding has no usable token.
    """
    from sdbuild.checkpoints.textual_inversion import TextualInversion

    words = params.tokens if params.tokens is not None else _words(inputs["tokenizer"])
    embeddings = {}
    for role, folder in inputs.items():
        if role.startswith(_EMBEDDING):
            files = sorted(path for path in folder.iterdir() if not is_card(path.name))
            label = f"{role} ({' and '.join(path.name for path in files)})"
            embeddings[role] = TextualInversion(files, label, words.get(role))
    make = _grow_encoder if "tokenizer" in inputs else _extend_tokenizer
    make(inputs, params, embeddings, out)
    progress(1.0, f"{len(embeddings)} textual inversions")


def _words(tokenizer: Path) -> dict[str, str | None]:
    """Role of an embedding → the word that the tokenizer has for it."""
    document = json.loads((tokenizer / INVERSIONS).read_bytes())
    return {each["embedding"]: each["token"] for each in document["tokens"]}


def _extend_tokenizer(inputs: Mapping[str, Path], params: Parameters, embeddings: Mapping[str, Any], out: Path) -> None:
    source, encoders = inputs["checkpoint"], params.encoders
    vocabulary, merges = read_tokenizer(source)
    try:
        made = NewTokens(json.loads(vocabulary), merges)
    except ValueError as error:
        raise EmbedError(f"{VOCABULARY} or {MERGES} cannot be read ({error}); download the tokenizer again") from error
    tokens = []
    for role, embedding in embeddings.items():
        count = len(embedding.vectors(encoders[0], encoders))
        token = made.add(embedding.label, _token((params.tokens or {})[role], embedding), count)
        tokens.append({"embedding": role, "token": token.text, "vectors": count, "changes": token.changes})
    for path in source.iterdir():
        if path.name not in _REPLACED:
            place(path, out / path.name)
    _write(out / VOCABULARY, json.dumps(made.vocabulary, ensure_ascii=False) + "\n")
    _write(out / MERGES, merges + "".join(f"{first} {second}\n" for first, second in made.merges))
    roles = {embedding.label: role for role, embedding in embeddings.items()}
    rows = [
        {"entry": entry, "embedding": roles[row.embedding], "vector": row.number}
        if isinstance(row, Vector)
        else {"entry": entry, "like": row}
        for entry, row in made.rows.items()
    ]
    document = {"first": made.first, "end": made.vocabulary[END], "rows": rows, "tokens": tokens}
    _write(out / INVERSIONS, json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def _token(stated: str | None, embedding: Any) -> str:
    """The recipe's word for an embedding, or the file's own."""
    if stated is None and embedding.name is None:
        raise EmbedError(f"{embedding.label}: names no token; write one in the recipe, such as `token: <my-word>`")
    token = stated if stated is not None else embedding.name
    try:
        return check_token(token)
    except TokenError as error:
        advice = "write another in the recipe, such as `token: <my-word>`"
        raise EmbedError(f"{embedding.label}: its token {token!r} is {error}; {advice}") from error


def _grow_encoder(inputs: Mapping[str, Path], params: Parameters, embeddings: Mapping[str, Any], out: Path) -> None:
    from sdbuild.checkpoints.checkpoint import Checkpoint
    from sdbuild.checkpoints.textual_inversion import grow, grown_config
    from sdbuild.checkpoints.write import write_safetensors

    source, component = inputs["checkpoint"], params.component
    document = json.loads((inputs["tokenizer"] / INVERSIONS).read_bytes())
    vectors = {role: embedding.vectors(component, params.encoders) for role, embedding in embeddings.items()}
    rows = [
        row["like"] if "like" in row else (embeddings[row["embedding"]].label, vectors[row["embedding"]][row["vector"]])
        for row in document["rows"]
    ]
    write_safetensors(out / _WEIGHTS, grow(Checkpoint.open(source), document["first"], rows, component))
    config = json.loads((source / "config.json").read_bytes())
    grown = grown_config(config, document["first"] + len(rows), len(rows), document["end"])
    _write(out / "config.json", json.dumps(grown, indent=2, sort_keys=True) + "\n")
    for path in source.iterdir():
        if is_card(path.name):
            place(path, out / path.name)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
