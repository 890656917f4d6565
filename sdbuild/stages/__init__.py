"""What a stage declares, and where stages are found.

A stage is one module of this package with two public names: `STAGE`, a `Stage`, and
`run(inputs, params, out, progress)`. Nothing else lists it. The declaration is read while planning, so a stage module
imports heavy libraries inside `run` only. Its version is raised by hand whenever the same inputs and parameters give
other bytes.
"""

import dataclasses
import functools
import importlib
import pkgutil
from graphlib import CycleError, TopologicalSorter


@dataclasses.dataclass(frozen=True)
class Stage:
    """The declaration of one kind of step.

    Attributes:
        name: the stage's name, which is also the first half of its tasks' names.
        version: raised by hand when the stage's result changes; part of every action key.
        tools: distributions whose versions shape the output, by the names that package indexes use.
        entry: `module:function` that the worker process calls; by default `run` of the stage's own module.
        parameters: the frozen dataclass of what the stage reads besides its inputs.
        title: what one action makes, with `{}` for its component.
        group: what all of its actions do.
        reads: the inputs, for the documentation.
        result: the artifact, for the documentation.
        follows: the stages whose artifacts it reads.
        product: where the artifact is put into the output folder, the file that stands for it.
        further_groups: other first halves of its tasks' names, and what those do.
    """

    name: str
    version: int
    tools: tuple[str, ...] = ()
    entry: str = ""
    parameters: type | None = None
    title: str = ""
    group: str = ""
    reads: str = ""
    result: str = ""
    follows: tuple[str, ...] = ()
    product: str | None = None
    further_groups: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.entry:
            object.__setattr__(self, "entry", f"sdbuild.stages.{self.name}:run")


@functools.cache
def stage_names() -> tuple[str, ...]:
    """Every stage, in the order in which artifacts go through them; those of one rank by name.

    Raises:
        TypeError: a stage follows one that does not exist, or itself.
    """
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    found = {name: load_stage(name) for name in modules if hasattr(_module(name), "STAGE")}
    for stage in found.values():
        if unknown := set(stage.follows) - set(found):
            raise TypeError(f"{__name__}.{stage.name}.STAGE.follows names {', '.join(unknown)}, which is no stage")
    sorter = TopologicalSorter({name: found[name].follows for name in sorted(found)})
    try:
        sorter.prepare()
    except CycleError as error:
        raise TypeError(f"{__name__}: stages follow each other in a circle: {' → '.join(error.args[1])}") from error
    ordered: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += ready
        sorter.done(*ready)
    return tuple(ordered)


def load_stage(name: str) -> Stage:
    """Import a stage's module and return its declaration.

    Raises:
        TypeError: it declares no stage, or leaves something out that tasks, tables or documentation need.
    """
    where = f"{__name__}.{name}"
    declaration = getattr(_module(name), "STAGE", None)
    if not isinstance(declaration, Stage) or declaration.name != name:
        raise TypeError(f"{where}.STAGE must be a Stage named {name!r}, it is {declaration!r}")
    for field in ("title", "group", "reads", "result"):
        if not getattr(declaration, field):
            raise TypeError(f"{where}.STAGE has no {field}: say in a few words {_WANTED[field]}")
    if not dataclasses.is_dataclass(declaration.parameters):
        raise TypeError(f"{where}.STAGE.parameters must be a class under sdbuild.stages.parameters.parameters")
    return declaration


_WANTED = {
    "title": "what one action makes, with {} for its component",
    "group": "what all of its actions do",
    "reads": "what its inputs are",
    "result": "what its artifact is",
}


def _module(name: str) -> object:
    return importlib.import_module(f"{__name__}.{name}")
