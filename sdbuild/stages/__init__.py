"""What a stage declares, and where stages are found.

A stage is one module of this package with two public names: `STAGE`, a `Stage`, and
`run(inputs, params, out, progress)`. The declaration is read while planning, so a stage module imports heavy libraries
inside `run` only. Its version is raised by hand whenever the same inputs and parameters give other bytes.
"""

import importlib
from dataclasses import dataclass

STAGE_NAMES = (
    "source",
    "fuse",
    "embed",
    "prediction",
    "account",
    "convert",
    "quantize",
    "chunk",
    "reference",
    "verify",
    "compile",
    "bundle",
    "sheet",
)
"""Every stage, in the order in which artifacts go through them."""


@dataclass(frozen=True)
class Stage:
    """The declaration of one kind of step.

    Attributes:
        name: the stage's name, which is also the first half of its tasks' names.
        version: raised by hand when the stage's result changes; part of every action key.
        tools: distributions whose versions shape the output, by the names that package indexes use.
        entry: `module:function` that the worker process calls; by default `run` of the stage's own module.
    """

    name: str
    version: int
    tools: tuple[str, ...] = ()
    entry: str = ""

    def __post_init__(self) -> None:
        if not self.entry:
            object.__setattr__(self, "entry", f"sdbuild.stages.{self.name}:run")


def load_stage(name: str) -> Stage:
    """Import a stage's module and return its declaration."""
    declaration = importlib.import_module(f"sdbuild.stages.{name}").STAGE
    if not isinstance(declaration, Stage) or declaration.name != name:
        raise TypeError(f"sdbuild.stages.{name}.STAGE must be a Stage named {name!r}, it is {declaration!r}")
    return declaration
