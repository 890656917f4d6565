"""What the linter says: a rule's name, where it is broken, and how."""

from __future__ import annotations

from dataclasses import dataclass

RULES = {
    "missing-model": "the pipeline cannot be loaded without this model",
    "unreadable-model": "the model's own files are missing or malformed",
    "unknown-file": "the Swift package never reads this file or model; its name is wrong, or it is dead weight",
    "mixed-forms": "packages and compiled models do not stand side by side",
    "incomplete-chunks": "`Chunk1` and `Chunk2` are loaded as a pair; one of them is missing",
    "shadowed-model": "the whole model is never loaded, because the pair of chunks wins",
    "input-name": "the Swift package feeds inputs by these names, and no others",
    "output-name": "the Swift package reads these outputs by name",
    "single-input": "the input's name is read from the model, so there must be exactly one input",
    "single-output": "the output's name is read from the model, so there must be exactly one output",
    "input-type": "the Swift package feeds multi-arrays of numbers",
    "output-type": "the Swift package reads outputs as Float32; Float16 outputs crash it (coremltools#1947)",
    "shape": "the shape is not the one that the Swift package feeds or reads",
    "shape-agreement": "a size differs from the one that another model has",
    "image-size": "the picture has 8 rows and columns for each of the latent image",
    "batch": "the UNet's batch: 2 with guidance; 1 works for SD 1 and 2 without ControlNets only",
    "text-width": "the denoiser attends to exactly what the text encoders give",
    "time-ids": "`time_ids` has 6 values for SDXL, 5 for its refiner",
    "chunk-feed": "chunk 2 is fed the original inputs and chunk 1's outputs, and nothing else",
    "residuals": "ControlNets give exactly the residuals that ControlledUnet takes, under the same names",
    "features": "T2I-Adapters give exactly the features that AdaptedUnet takes, but for the batch, by the same names",
    "t5-files": "T5's model and its two tokenizer files are there together, or none is",
    "t5-tokenizer": "swift-transformers 0.1.8, which the Swift package uses, knows every part of T5's tokenizer",
    "tokenizer-missing": "`vocab.json` and `merges.txt` are needed to read a prompt",
    "vocabulary": "`vocab.json` maps each token to an id of its own",
    "special-token": "the Swift package looks these tokens up by name",
    "merges-newline": "the last line of `merges.txt` is lost without a final newline",
    "merges": "each line of `merges.txt` is two tokens, and the vocabulary knows them and what they make",
    "new-token": "the Swift package reads each textual inversion's tokens as one token each",
    "document": "`bundle.json` is there, and is as its schema says",
    "document-models": "`bundle.json` lists exactly the models that are there, with their interfaces",
    "document-digest": "a file's content is not the one that `bundle.json` names",
    "document-facts": "`bundle.json` says of sizes, batch, chunks and form what the models say",
    "extensions": "what an app must do beyond what the Swift package does has a name that is known",
    "prediction-type": "the Swift package's schedulers take noise; what gives anything else says so under `extensions`",
    "schedule": "schedules and latents that the Swift package cannot draw with stand under `extensions`, and no others",
    "settings": "`swift_package` holds what the bundle needs its app to set, by the package's own names",
}
"""Every rule and what it means."""


@dataclass(frozen=True, order=True)
class Violation:
    """One broken rule.

    Attributes:
        rule: a key of `RULES`.
        where: the file in the bundle, and in it the input or output.
        what: what was found and what is needed.
    """

    rule: str
    where: str
    what: str

    def __post_init__(self) -> None:
        assert self.rule in RULES, self.rule

    def __str__(self) -> str:
        return f"{self.where}: {self.what} [{self.rule}]"
