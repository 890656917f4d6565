"""What one target of a recipe needs: from each component's files to the bundle.

The parameters of each stage are exactly what the stage reads, with defaults written out: what is missing here cannot
cause a rebuild, and what is here cannot be forgotten by one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.account.sources import JUDGES, PART
from sdbuild.checkpoints.files import SINGLE_FILE
from sdbuild.checkpoints.markers import PredictionType
from sdbuild.components import CONDITIONERS, NETWORKS, TOKENIZERS, folder_of
from sdbuild.components.additions import MULTILINGUAL_PROJECTION
from sdbuild.components.network import Argument
from sdbuild.compression import Compression
from sdbuild.families import FAMILIES, Family
from sdbuild.interface.swift.files import conditioner_name
from sdbuild.plan.bundle_description import bundle_parameters
from sdbuild.plan.bundle_part import Part
from sdbuild.plan.errors import PlanError
from sdbuild.plan.graph import Draft
from sdbuild.plan.loras import ADAPTED
from sdbuild.plan.numbers import decimal, exact
from sdbuild.plan.sources import Source
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.scheduler import as_text
from sdbuild.recipe.target import Target
from sdbuild.recipe.vocabulary import UNET_REFINER, Precision
from sdbuild.stages import account, chunk, convert, embed, fuse, prediction, quantize, reference, schedule, verify
from sdbuild.stages import compile as compile_stage
from sdbuild.stages import source as source_stage
from sdbuild.stages.parameters import to_document

PROJECTION = MULTILINGUAL_PROJECTION.name
PROJECTION_FILE = "projection.pt"
"""The multilingual projection's file in its artifact."""


SAMPLES = 3
"""Sets of inputs in a verification: for a denoiser the first, the middle and the last step of the schedule."""

SEED = 0

# The text encoders of CLIP, to which textual inversions give words.
_CLIP = ("text_encoder", "text_encoder_2")
# Sources of one file that are no checkpoints, by the first word of their roles.
_ADDED_FILES = ("lora", "embedding")
# What says how pictures are drawn.
_SCHEDULED = ("index", "scheduler")


@dataclass
class TargetPlan:
    """Drafts of everything that one target of a recipe needs.

    Attributes:
        recipe: the recipe with the target's overrides merged.
        target: the device.
        name: the bundle's: the target's, for further sizes with the picture's size.
        family: the recipe's, told from its components alone: a graph must not change once the checkpoint's own files
            have been fetched.
        model: where the pipeline comes from.
        controlnets: where each ControlNet comes from, in the recipe's order.
        projection: the multilingual projection's file; None for bundles without.
        refiner: where SDXL's refiner comes from; None for bundles without.
        verify: whether to compare each model with the original one.
        compiler: the Core ML compiler's build; None where there is none, and then nothing is compiled.
        tokenizer: where the tokenizers come from; None for the pipeline's own.
        vae: where the VAE comes from; None for the pipeline's own.
        denoiser: where the UNet or the transformer comes from; None for the pipeline's own.
        loras: where each LoRA comes from, and its weight.
        t2i_adapters: where each T2I-Adapter comes from, in the recipe's order.
        textual_inversions: where each textual inversion comes from, and its token; None for the file's own.
    """

    recipe: Recipe
    target: Target
    name: str
    family: Family | None
    model: Source
    controlnets: tuple[Source, ...]
    refiner: Source | None
    projection: Path | None
    verify: bool
    compiler: str | None
    tokenizer: Source | None = None
    vae: Source | None = None
    denoiser: Source | None = None
    loras: tuple[tuple[Source, float], ...] = ()
    t2i_adapters: tuple[Source, ...] = ()
    textual_inversions: tuple[tuple[Source, str | None], ...] = ()
    _drafts: dict[str, Draft] = field(default_factory=dict)
    _asked: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the account, for each source

    def drafts(self) -> tuple[Draft, ...]:
        """Every draft, producers before consumers, the bundle last."""
        index = self._files("index")
        inputs = {"index": index} | self._prediction()
        verifications: dict[str, Draft] = {}
        for part in self._parts():
            whole: Draft | None = None
            for draft in self._models(part):
                if self.verify:
                    verifications |= self._verify(part, draft.stage, draft, whole)
                whole = draft
            assert whole is not None
            inputs[part.name] = self._compile(part, whole) if self.compiler else whole
        if tokenizer := self._bundled_tokenizer:
            inputs["tokenizer"] = self._embed(tokenizer, self._source(tokenizer, self.model, tokenizer))
        if "text_encoder_3" in self.recipe.components:
            inputs["tokenizer_3"] = self._source("tokenizer_3", self.model, "tokenizer_3")
        if self.vae is not None:
            # Its configuration overrules what the index says of the checkpoint's own.
            inputs["vae"] = self._files("vae")
        inputs["account"] = self._account(inputs)
        self._bundle(inputs | verifications)
        return tuple(self._drafts.values())

    def _models(self, part: Part) -> Iterator[Draft]:
        """A part's model as it is converted, then as it is made smaller, the one that is shipped last."""
        package = self._convert(part)
        yield package
        if (compression := self.recipe.compression(part.setting)) is not None:
            package = self._quantize(part, package, compression)
            yield package
        if part.is_unet and self.recipe.unet.chunks == 2:
            yield self._chunk(part, package)

    def _account(self, inputs: Mapping[str, Draft]) -> Draft:
        """What becomes of everything in the sources that a bundle is made from."""
        roles: dict[str, Draft] = {}
        waiting = list(inputs.values())
        for draft in waiting:
            waiting += draft.inputs.values()
            if draft.stage == "source" and not draft.inputs and self._kind(draft) in JUDGES:
                roles[draft.component] = draft
        asked = {role: {**self._asked[draft.base], "component": self._kind(draft)} for role, draft in roles.items()}
        for role, each in asked.items():
            each.pop("part", None)
            if role.startswith("lora-"):
                each["components"] = [name for name in ADAPTED if name in self.recipe.components]
        return self._add(Draft("account:sources", "account", "sources", to_document(account.Parameters(asked)), roles))

    def _kind(self, draft: Draft) -> str:
        """What the account calls a source: its component, or which kind of single file it is."""
        role = draft.component.partition("-")[0]
        if (part := self._asked.get(draft.base, {}).get("part")) is not None:
            return f"{PART}{part}"
        return role if role in _ADDED_FILES else str(draft.parameters["component"])

    def _parts(self) -> Iterator[Part]:
        for component in self.recipe.components:
            yield Part(component.value, component.value, component.value, folder_of(component))
        if self.projection is not None:
            yield Part(PROJECTION, PROJECTION, PROJECTION, PROJECTION)
        for unet in dict.fromkeys(CONDITIONERS[kind] for kind, _ in self._conditioners.values()):
            yield Part(unet, "unet", "unet", "unet")
        if self.refiner is not None:
            yield Part(UNET_REFINER, "unet", UNET_REFINER, UNET_REFINER)
        for name, (kind, _) in self._conditioners.items():
            yield Part(name, kind, kind, name)

    @cached_property
    def _conditioners(self) -> dict[str, tuple[str, Source]]:
        """Part of each ControlNet and T2I-Adapter → which of both it is, and where it comes from."""
        found: dict[str, tuple[str, Source]] = {}
        for kind, sources in (("controlnet", self.controlnets), ("t2i_adapter", self.t2i_adapters)):
            for source in sources:
                name = conditioner_name(source.label)
                if f"{kind}-{name}" in found:
                    raise PlanError(f"{kind}s: two would be called {name} in the bundle; leave out {source.label}")
                found[f"{kind}-{name}"] = kind, source
        return found

    def _add(self, draft: Draft) -> Draft:
        return self._drafts.setdefault(draft.base, draft)

    def _source(self, name: str, source: Source, component: str) -> Draft:
        base = f"source:{name}"
        if component in TOKENIZERS.values() and self.tokenizer is not None:
            source = self.tokenizer
        if base not in self._drafts:
            if source.is_single_file and component != SINGLE_FILE:
                whole = self._source(
                    SINGLE_FILE if source is self.model else f"{SINGLE_FILE}-{name}", source, SINGLE_FILE
                )
                if source not in (self.model, self.refiner):
                    self._asked[whole.base]["part"] = component
                    pipeline = self._source("index", self.model, "index")
                    taken = to_document(source_stage.Parameters(component))
                    return self._add(Draft(base, "source", name, taken, {"checkpoint": whole, "base": pipeline}))
                # What a marker says reaches the result since; files taken apart before that are taken apart again.
                extraction = source_stage.Parameters(component, prediction_type=self._predicted(source), markers=True)
                return self._add(Draft(base, "source", name, to_document(extraction), {"checkpoint": whole}))
            asked: dict[str, Any] = {"source": source.label}
            if component == SINGLE_FILE and (predicted := self._predicted(source)) is not None:
                asked["prediction_type"] = predicted
            self._asked[base] = asked
            precision = self._source_precision(name)
            parameters, files = source.parameters(component, precision), source.files(component, precision)
            self._add(Draft(base, "source", name, to_document(parameters), files=files))
        return self._drafts[base]

    def _predicted(self, source: Source) -> PredictionType | None:
        """What the recipe says that a single file's UNet predicts."""
        stated = self.recipe.scheduler.prediction_type if source is self.model else None
        return source.prediction_type or (stated if stated != "sample" else None)

    def _source_precision(self, name: str) -> Precision | None:
        """The precision that a source's weights are needed in: the highest of the models that are made from it."""
        needed = {self._precision(part) for part in self._parts() if part.source == name}
        if not needed:
            return None
        return "float32" if "float32" in needed else "float16"

    def _origin(self, part: Part) -> Source:
        """The checkpoint that a part is made from."""
        if part.name == UNET_REFINER and self.refiner is not None:
            return self.refiner
        _, source = self._conditioners.get(part.name, (None, self._own(part.source)))
        return source

    def _own(self, folder: str) -> Source:
        """Where a component of the pipeline comes from."""
        other = self.vae if folder == "vae" else self.denoiser if folder in ("unet", "transformer") else None
        return other if other is not None else self.model

    def _checkpoint(self, part: Part) -> Draft:
        if part.name == PROJECTION and self.projection is not None:
            files = {PROJECTION_FILE: self.projection}
            parameters = to_document(source_stage.Parameters(part.name))
            return self._add(Draft(f"source:{part.name}", "source", part.name, parameters, files=files))
        if part.component in CONDITIONERS:
            return self._source(part.name, self._origin(part), part.component)
        if part.name == UNET_REFINER:
            return self._source(part.name, self._origin(part), "unet")
        return self._files(part.source)

    def _files(self, name: str) -> Draft:
        """What a part of the pipeline is made from, with LoRAs, textual inversions and the recipe's schedule in it."""
        if name in _SCHEDULED:
            return self._schedule(name)
        return self._embed(name, self._fuse(name)) if name in _CLIP else self._fuse(name)

    def _schedule(self, name: str) -> Draft:
        """The checkpoint's index or scheduler, with what the recipe states of the schedule."""
        own, stated = self._source(name, self.model, name), self.recipe.scheduler.named()
        if (predicted := self.model.prediction_type) is not None and not self.model.is_single_file:
            stated = {"prediction_type": predicted} | stated
        if not stated:
            return own
        parameters = to_document(schedule.Parameters(name, as_text(stated)))
        return self._add(Draft(f"schedule:{name}", "schedule", name, parameters, {"source": own}))

    def _embed(self, name: str, own: Draft) -> Draft:
        """The files of a text encoder, or of the bundle's tokenizer, with every textual inversion in them."""
        if not self.textual_inversions or self._bundled_tokenizer is None:
            return own
        encoders = [encoder for encoder in _CLIP if encoder in self.recipe.components]
        inputs, tokens = {"checkpoint": own}, {}
        for number, (source, token) in enumerate(self.textual_inversions, start=1):
            role = f"embedding-{number}"
            inputs[role], tokens[role] = self._source(role, source, SINGLE_FILE), token
        stated: dict[str, str | None] | None = None
        if name in TOKENIZERS:
            tokenizer = self._bundled_tokenizer
            inputs["tokenizer"] = self._embed(tokenizer, self._source(tokenizer, self.model, tokenizer))
        else:
            stated = tokens
        parameters = embed.Parameters(name, tuple(encoders), stated)
        return self._add(Draft(f"embed:{name}", "embed", name, to_document(parameters), inputs))

    def _fuse(self, name: str) -> Draft:
        """The files of a component of the pipeline with every LoRA in them."""
        own = self._source(name, self._own(name), name)
        if name not in ADAPTED or not self.loras:
            return own
        inputs, weights = {"checkpoint": own}, {}
        for number, (source, weight) in enumerate(self.loras, start=1):
            role = f"lora-{number}"
            inputs[role], weights[role] = self._source(role, source, SINGLE_FILE), decimal(weight)
        return self._add(Draft(f"fuse:{name}", "fuse", name, to_document(fuse.Parameters(name, weights)), inputs))

    @property
    def _encoders_family(self) -> str | None:
        """The family as the parameters of networks have it that many share: whose text encoders these are."""
        if self.family is None:
            return None
        return (FAMILIES[self.family].text_encoders_of or self.family).value

    def _interface(self, part: Part) -> dict[str, Any]:
        """The parameters that fix a model's inputs and outputs."""
        recipe = self.recipe
        parameters: dict[str, Any] = {"component": part.component}
        network = NETWORKS[part.component]
        if Argument.FAMILY in network.arguments:
            parameters["family"] = self._encoders_family
        if Argument.LATENT in network.arguments:
            fixed = network.latent_size
            parameters |= {"latent_height": fixed or recipe.latent.height, "latent_width": fixed or recipe.latent.width}
        if Argument.TEXT in network.arguments:
            parameters["text_sequence_length"] = recipe.text_sequence_length
        if recipe.clip_skip is not None and part.component in _CLIP:
            parameters["clip_skip"] = recipe.clip_skip
        if Argument.BATCH in network.arguments:
            parameters["batch"] = network.batch or recipe.unet.batch
        if part.source == "vae":
            # The clients know one factor: where the VAE has a mean and a spread of latents, the models apply them.
            parameters["latent_statistics"] = True
        if part.is_unet:
            parameters["controlnet_ready"] = part.name == CONDITIONERS["controlnet"]
            if part.name == CONDITIONERS["t2i_adapter"]:
                parameters["adapter_ready"] = True
        if part.name == UNET_REFINER or (part.name == "unet" and self.family is Family.REFINER):
            # So that another checkpoint under this name is refused at once.
            parameters["family"] = Family.REFINER.value
        return parameters

    def _precision(self, part: Part) -> Precision:
        return self.recipe.precision_of(part.setting, self.family)

    def _attention(self) -> str:
        return (self.recipe.attention_implementation or self.target.attention_implementation).value

    def _convert(self, part: Part) -> Draft:
        parameters = convert.Parameters(
            **self._interface(part),
            precision=self._precision(part),
            deployment_target=self.recipe.deployment_target,
            attention_implementation=self._attention() if NETWORKS[part.component].denoises else None,
            origin=(self._origin(part).hub or "") if part.name != PROJECTION else "",
        )
        inputs = {"checkpoint": self._checkpoint(part)} | self._prediction(part)
        return self._add(Draft(f"convert:{part.name}", "convert", part.name, to_document(parameters), inputs))

    def _prediction(self, part: Part | None = None) -> dict[str, Draft]:
        """What makes noise of a UNet's velocity, where the recipe wants noise; known once the checkpoint's index is.

        Args:
            part: what it is for; None for the bundle.
        """
        predicts = "unet" in self.recipe.components if part is None else part.source == "unet"
        if not predicts or self.recipe.unet.prediction != "epsilon":
            return {}
        index = {"index": self._files("index")}
        parameters = to_document(prediction.Parameters())
        return {"prediction": self._add(Draft("prediction:unet", "prediction", "unet", parameters, index))}

    def _quantize(self, part: Part, package: Draft, compression: Compression) -> Draft:
        parameters = to_document(quantize.Parameters.of(compression))
        return self._add(Draft(f"quantize:{part.name}", "quantize", part.name, parameters, {"package": package}))

    def _chunk(self, part: Part, package: Draft) -> Draft:
        parameters = to_document(chunk.Parameters())
        return self._add(Draft(f"chunk:{part.name}", "chunk", part.name, parameters, {"package": package}))

    def _verify(self, part: Part, after: str, package: Draft, whole: Draft | None = None) -> dict[str, Draft]:
        """The comparison of one artifact with the original module, by its role in the bundle."""
        compression = self.recipe.compression(part.setting) if after != "convert" else None
        stated = self.recipe.verify.get(part.setting)
        questions = _questions(after, compression, self._precision(part))
        gates = {name: exact(value) for name in questions if (value := getattr(stated, name, None)) is not None}
        inputs = {"package": package, "reference": self._reference(part)}
        if after == "chunk" and whole is not None:
            inputs["whole"] = whole
        parameters = verify.Parameters(
            component=part.component,
            after=after,
            precision=self._precision(part),
            bits=None if compression is None else compression.bits,
            method=None if compression is None else compression.method,
            gates=gates,
        )
        name = f"{after}-{part.name}"
        return {f"verify-{name}": self._add(Draft(f"verify:{name}", "verify", name, to_document(parameters), inputs))}

    def _reference(self, part: Part) -> Draft:
        """The original module's answers, which every verification of a part is compared with."""
        inputs = {"checkpoint": self._checkpoint(part)}
        if NETWORKS[part.component].denoises:
            inputs |= self._conditioning(part) | self._prediction(part)
        parameters = reference.Parameters(
            **self._interface(part), precision=self._precision(part), samples=SAMPLES, seed=SEED
        )
        return self._add(Draft(f"reference:{part.name}", "reference", part.name, to_document(parameters), inputs))

    def _conditioning(self, part: Part) -> dict[str, Draft]:
        """What realistic inputs of a denoiser are computed with: text states and the schedule's time steps."""
        names = ["scheduler"]
        for encoder, tokenizer in TOKENIZERS.items():
            if encoder in self.recipe.components and (encoder != "text_encoder" or part.name != UNET_REFINER):
                names += [encoder, tokenizer]
        return {name: self._files(name) for name in names}

    def folders(self) -> dict[str, Draft]:
        """What PyTorch draws with: the checkpoint's folders, by name."""
        names = ["index", "scheduler", "unet", "vae"]
        for encoder, tokenizer in TOKENIZERS.items():
            if encoder in self.recipe.components:
                names += [encoder, tokenizer]
        return {name: self._files(name) for name in names}

    def _compile(self, part: Part, package: Draft) -> Draft:
        assert self.compiler is not None
        parameters = compile_stage.Parameters("macos" if self.target.os == "macOS" else "ios")
        return self._add(
            Draft(
                base=f"compile:{part.name}",
                stage="compile",
                component=part.name,
                parameters=to_document(parameters),
                inputs={"package": package},
                tools={"coremlcompiler": self.compiler},
            )
        )

    def _bundle(self, inputs: Mapping[str, Draft]) -> Draft:
        parts = tuple(self._parts())
        precisions = {part.name: self._precision(part) for part in parts}
        parameters = to_document(bundle_parameters(self, parts, precisions, self._attention()))
        return self._add(Draft(f"bundle:{self.name}", "bundle", self.name, parameters, inputs))

    @property
    def _bundled_tokenizer(self) -> str | None:
        """The tokenizer whose files the bundle holds; the refiner has only the second."""
        for encoder, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
            if encoder in self.recipe.components:
                return tokenizer
        return None


def _questions(after: str, compression: Compression | None, precision: str) -> tuple[str, ...]:
    """The gates that a verification reads."""
    if compression is not None:
        return ("palettized_db",)
    if precision == "float32":
        return ("structure_db",)
    return ("signal_db",) if after == "chunk" else ("structure_db", "signal_db")
