"""The `name=value` words of the command line: what they are called and what they mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdbuild.plan.options import BUILD_VARIABLES, DEFAULT_RECIPE


@dataclass(frozen=True)
class Variable:
    """One word of the form `name=value` that a command takes.

    Attributes:
        name: what stands before the equals sign.
        value: what to write after it: a placeholder in capitals, or the value itself.
        meaning: for help and reference.
        default: what holds when the word is left out, for people.
        required: whether the command cannot do without.
    """

    name: str
    value: str
    meaning: str
    default: str = ""
    required: bool = False

    @property
    def usage(self) -> str:
        """The word as usage lines show it."""
        word = f"{self.name}={self.value}"
        return word if self.required else f"[{word}]"


RECIPE = Variable("recipe", "NAME", "a recipe's name, or the path of a YAML file", f"`{DEFAULT_RECIPE}`")
TARGET = Variable("target", "NAME", "build for one of the recipe's targets only", "all of them")
ONE_TARGET = replace(TARGET, meaning="which of the recipe's targets", default="the first")
SOURCE = Variable(
    "source",
    "PATH",
    "a local checkpoint, a directory in diffusers' layout or a [single file](../how-to/single-file.md), that takes the "
    "place of the recipe's `model.version`",
)
OUT = Variable("out", "DIR", "where bundles are put, as `OUT/RECIPE/TARGET/`", "`build`")
VERIFY = Variable(
    "verify", "off", "leaves every comparison with the original models out; `bundle.json` says so", "`on`"
)
BUILD = (RECIPE, TARGET, SOURCE, OUT, VERIFY)
"""What a build takes, and every command that speaks of one."""

if tuple(variable.name for variable in BUILD) != BUILD_VARIABLES:
    raise TypeError(f"a build's variables are {BUILD_VARIABLES}; described here are {BUILD}")


def usage(variables: Sequence[Variable]) -> str:
    """The variables as a usage line shows them."""
    return " ".join(variable.usage for variable in variables)
