"""Where a build's models come from: the Hub, a local directory, or a checkpoint that sdbuild generates."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdbuild.plan.errors import PlanError
from sdbuild.recipe import LoadedRecipe, ModelKind, ModelReference
from sdbuild.stages.checkpoint_files import BUILTIN_GENERATOR, select_files


@dataclass(frozen=True)
class Source:
    """A model reference with its place on this machine resolved.

    Attributes:
        reference: what the recipe says.
        directory: the local directory that stands for it; None for the Hub and for generated checkpoints.
    """

    reference: ModelReference
    directory: Path | None = None

    @property
    def kind(self) -> str:
        """`hub`, `directory` or `builtin`."""
        return ModelKind.DIRECTORY.value if self.directory is not None else self.reference.kind.value

    @property
    def label(self) -> str:
        """What bundles call the model: never a path, because they are the same wherever they are built."""
        if self.reference.kind is ModelKind.DIRECTORY and self.directory is not None:
            return self.directory.name
        return self.reference.version

    @property
    def revision(self) -> str | None:
        """The Hub repository's revision; None where the files come from elsewhere."""
        return self.reference.revision if self.kind == ModelKind.HUB.value else None

    @property
    def hub(self) -> str | None:
        """Repository and revision, as models' metadata name them; None where the files come from elsewhere."""
        if self.kind != ModelKind.HUB.value:
            return None
        return f"{self.reference.version}@{self.reference.revision}" if self.revision else self.reference.version

    def parameters(self, component: str, precision: str | None) -> dict[str, Any]:
        """What the `source` stage reads for one component; a local directory's files need no parameters.

        Args:
            component: a key of `COMPONENT_FOLDERS`.
            precision: what the component's models are built in; None for a component without weights.
        """
        version, revision = self.reference.version, self.reference.revision
        match self.kind:
            case "directory":
                return {"component": component}
            case "builtin":
                return {"version": version, "component": component, "generator": BUILTIN_GENERATOR}
            case _:
                parameters = {"version": version, "revision": revision, "component": component}
                return parameters | ({"precision": precision} if precision is not None else {})

    def files(self, component: str, precision: str | None) -> Mapping[str, Path]:
        """Path in the component's tree → file, for a local directory; empty for all else.

        Raises:
            CheckpointFilesError: the directory lacks what the component needs.
        """
        if self.directory is None:
            return {}
        chosen = select_files(component, self._listing, precision=precision or "float32")
        return {path: self.directory / name for path, name in chosen.items()}

    @cached_property
    def _listing(self) -> tuple[str, ...]:
        """The directory's files, two levels deep: a checkpoint of diffusers' layout has no deeper ones."""
        assert self.directory is not None
        names = []
        for path in self.directory.iterdir():
            names += [f"{path.name}/{child.name}" for child in path.iterdir()] if path.is_dir() else [path.name]
        return tuple(sorted(names))


def resolve_source(loaded: LoadedRecipe, reference: ModelReference, override: Path | None = None) -> Source:
    """Find a model reference's place; `override` (`source=DIR`) takes the place of whatever it says.

    Raises:
        PlanError: a directory that the recipe names does not exist.
    """
    if override is not None:
        return Source(reference, override)
    if reference.kind is not ModelKind.DIRECTORY:
        return Source(reference)
    directory = loaded.directory_of(reference)
    if not directory.is_dir():
        raise PlanError(
            f"{loaded.path}: the model's directory {directory} does not exist; "
            "correct the version or, for the pipeline's model, give source=DIR on the command line"
        )
    return Source(reference, directory)
