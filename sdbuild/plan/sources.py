"""Where a build's models come from: the Hub, a local directory, or a checkpoint that sdbuild generates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sdbuild.builtin import shapes
from sdbuild.checkpoints import offline
from sdbuild.checkpoints.facts import CheckpointFacts, read_checkpoint_facts, read_single_file_facts
from sdbuild.checkpoints.files import ADAPTER_SETTINGS, ADAPTER_STEM, BUILTIN_GENERATOR, SINGLE_FILE, select_files
from sdbuild.checkpoints.local import list_checkpoint
from sdbuild.checkpoints.lora.files import lora_files
from sdbuild.checkpoints.markers import PredictionType
from sdbuild.plan.errors import PlanError
from sdbuild.plan.libraries import find_in_library
from sdbuild.recipe.load import LoadedRecipe
from sdbuild.recipe.lock import LockedRepository, source_name
from sdbuild.recipe.references import Lora, ModelKind, ModelReference, Reference, TextualInversion, library_of
from sdbuild.recipe.vocabulary import Precision
from sdbuild.stages.parameters import to_document
from sdbuild.stages.source import Parameters


@dataclass(frozen=True)
class Source:
    """A model reference with its place on this machine resolved.

    Attributes:
        reference: what the recipe says.
        path: the local directory or single file that stands for it; None for the Hub and for generated checkpoints.
        locked: what the recipe's lock pins a Hub repository to; None without a lock.
    """

    reference: Reference
    path: Path | None = None
    locked: LockedRepository | None = None

    @property
    def kind(self) -> str:
        """`hub`, `directory`, `file` or `builtin`."""
        if self.path is None:
            return self.reference.kind.value
        return (ModelKind.FILE if self.path.is_file() else ModelKind.DIRECTORY).value

    @property
    def is_single_file(self) -> bool:
        """Whether the components have to be taken out of one file."""
        return self.reference.is_single_file if self.path is None else self.path.is_file()

    @property
    def prediction_type(self) -> PredictionType | None:
        """What the recipe says that a single file's UNet predicts."""
        return self.reference.prediction_type if isinstance(self.reference, ModelReference) else None

    @property
    def file(self) -> str | None:
        """The single file of the Hub repository that is taken; None for all else."""
        return self.reference.file if self.path is None else None

    @property
    def label(self) -> str:
        """What bundles call the model: never a path, because they are the same wherever they are built."""
        if self.path is None or self.path == shapes.BUILTIN.get(self.reference.version):
            return self.reference.version
        return self.path.name

    @cached_property
    def facts(self) -> CheckpointFacts | None:
        """What is known of a local checkpoint without reading its weights; None for all others.

        A `.ckpt` tells nothing before it is unpickled, which is the `source` stage's work.

        Raises:
            RecipeError: it cannot be read, or is none.
        """
        return None if self.path is None else local_facts(self.path, self.prediction_type)

    @property
    def revision(self) -> str | None:
        """The Hub repository's revision, by the lock where there is one; None where the files come from elsewhere."""
        if self.locked is not None:
            return self.locked.commit
        return self.reference.revision if self.kind == ModelKind.HUB.value else None

    @property
    def hub(self) -> str | None:
        """Repository and revision, as models' metadata name them; None where the files come from elsewhere."""
        if self.kind != ModelKind.HUB.value:
            return None
        return f"{self.reference.version}@{self.revision}" if self.revision else self.reference.version

    def parameters(self, component: str, precision: Precision | None) -> Parameters:
        """What the `source` stage reads for one component; a local directory's files need no parameters.

        Args:
            component: a key of `COMPONENT_FOLDERS`.
            precision: what the component's models are built in; None for a component without weights.
        """
        version = self.reference.version
        match self.kind:
            case "directory" | "file":
                return Parameters(component)
            case "builtin":
                return Parameters(component, version=version, generator=BUILTIN_GENERATOR)
            case _:
                found = Parameters(component, version=version, revision=self.revision, precision=precision)
                if component == SINGLE_FILE:
                    found = replace(found, file=self.reference.file, beside=self._beside)
                if self.locked is not None:
                    return replace(found, files=self._locked_files(to_document(found)))
                return (
                    replace(found, **offline.choice(version, to_document(found))) if offline.is_asked_for() else found
                )

    @property
    def _beside(self) -> str | None:
        """The file of the same folder that belongs to a single file."""
        if isinstance(self.reference, TextualInversion):
            return self.reference.second_file
        return ADAPTER_SETTINGS if Path(self.reference.file or "").stem == ADAPTER_STEM else None

    def files(self, component: str, precision: str | None) -> Mapping[str, Path]:
        """Path in the component's tree → file, for a local checkpoint; empty for all else.

        Raises:
            CheckpointFilesError: the directory lacks what the component needs.
        """
        if self.path is None:
            return {}
        if isinstance(self.reference, Lora):
            return lora_files(self.path)
        if component == SINGLE_FILE:
            beside = self._beside if isinstance(self.reference, TextualInversion) else None
            if beside is not None and not (self.path.parent / beside).is_file():
                raise PlanError(f"{self.path.parent / beside}: does not exist; correct `second_file`")
            return {self.path.name: self.path} | ({beside: self.path.parent / beside} if beside is not None else {})
        chosen = select_files(component, self._listing, precision=precision or "float32")
        return {path: self.path / name for path, name in chosen.items()}

    def _locked_files(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Path in the component's tree → name, size and hash of the file, as the lock says."""
        assert self.locked is not None
        key = source_name(parameters["component"], parameters.get("precision"), parameters.get("file"))
        if key not in self.locked.sources:
            raise PlanError(
                f"the recipe's lock does not pin {key} of {self.locked.version}: the recipe has changed since. "
                "Run `doit lock recipe=NAME`; it adds what is missing and leaves the rest as it is."
            )
        taken = self.locked.sources[key]
        return {path: {"name": name, **vars(self.locked.files[name])} for path, name in taken.items()}

    @cached_property
    def _listing(self) -> tuple[str, ...]:
        """The directory's files; raises `RecipeError` where one of them must not be read."""
        assert self.path is not None
        return list_checkpoint(self.path)


def local_facts(path: Path, prediction_type: PredictionType | None = None) -> CheckpointFacts | None:
    """What is known of a local checkpoint, a directory or a single file, of which the recipe may say what it predicts.

    Raises:
        RecipeError: it cannot be read, or is none.
    """
    if not path.is_file():
        list_checkpoint(path)
        return read_checkpoint_facts(path)
    if path.suffix != ".safetensors":
        return None
    return read_single_file_facts(path, prediction_type)


def resolve_source(loaded: LoadedRecipe, reference: Reference, override: Path | None = None) -> Source:
    """Find a model reference's place; `override` (`source=PATH`) takes the place of whatever it says.

    Raises:
        PlanError: a directory or file that the recipe names does not exist, or its lock does not pin a repository.
    """
    if override is not None:
        return Source(reference, override)
    if reference.kind is ModelKind.BUILTIN:
        # The trained model lies beside the program: its files are read where they are, like those of a directory.
        return Source(reference, shapes.BUILTIN.get(reference.version))
    if reference.kind is ModelKind.HUB:
        locked = loaded.lock.find(reference.version, reference.revision) if loaded.lock is not None else None
        if loaded.lock is not None and locked is None:
            revision = f"@{reference.revision}" if reference.revision else ""
            raise PlanError(
                f"{loaded.lock.path}: does not pin {reference.version}{revision}, which the recipe names. "
                f"Run `doit lock recipe={loaded.recipe.name}`; it adds what is missing and leaves the rest as it is."
            )
        return Source(reference, locked=locked)
    if library_of(reference.version) is not None:
        return Source(reference, find_in_library(reference.version, _role(loaded, reference)))
    path = loaded.directory_of(reference)
    if not (path.is_dir() if reference.kind is ModelKind.DIRECTORY else path.is_file()):
        raise PlanError(
            f"{loaded.path}: the model's {reference.kind.value} {path} does not exist; "
            "correct the version or, for the pipeline's model, give source=PATH on the command line"
        )
    return Source(reference, path)


def _role(loaded: LoadedRecipe, reference: Reference) -> str:
    """Where in its recipe a reference stands."""
    for location, other in loaded.recipe.references():
        if type(other) is type(reference) and other.version == reference.version:
            return str(location[0])
    return "controlnets"  # the one list of models that a target may overrule
