"""`diagnose`: where half precision costs signal."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sdbuild.console import built
from sdbuild.console.command import VariableCommand
from sdbuild.console.quiet_libraries import hush
from sdbuild.console.tables import write_table
from sdbuild.console.variables import ONE_TARGET, OUT, RECIPE, SOURCE, Variable
from sdbuild.console.waiting import for_a_collection
from sdbuild.plan.cache import cache_directory
from sdbuild.plan.errors import PlanError
from sdbuild.store import Store

_MOST = 20
_COMPONENT = Variable("component", "NAME", "say which component to walk through, such as component=unet", required=True)
_ROWS = Variable("most", "N", "how many operations to show", f"`{_MOST}`")
_SAMPLE = Variable("sample", "N", "which set of inputs to walk with", "the last")


class Command(VariableCommand):
    """Show where half precision costs signal."""

    name = "diagnose"
    doc_purpose = "walk a converted component in float32 and float16, and show the operations that lose most signal"
    guide = "diagnose"
    variables = (RECIPE, ONE_TARGET, _COMPONENT, _ROWS, _SAMPLE, SOURCE, OUT)

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the table of operations."""
        hush()
        most = _count(variables, "most", _MOST)
        # The inputs are those of verification, so that it shows here what failed there.
        request = built.BuildRequest.from_variables(variables, self.name, self.known()).with_variables(verify="on")
        with ExitStack() as stack:
            stack.enter_context(Store(cache_directory()).in_use(for_a_collection))
            convert, reference = built.artifacts(request, variables["component"], "convert", "reference")
            folder = Path(stack.enter_context(TemporaryDirectory()))
            package = built.artifact(request, convert, folder / "package")
            samples = built.artifact(request, reference, folder / "reference") / "samples.safetensors"
            _diagnose(package, samples, most, variables)
        return 0


def _diagnose(artifact: Path, samples: Path, most: int, variables: Mapping[str, str]) -> None:
    from sdbuild.coreml.diagnose import output_signals, walk, worst

    (package,) = artifact.glob("*.mlpackage")
    inputs = _sample(samples, variables)
    modules = json.loads((artifact / "modules.json").read_text(encoding="utf-8"))
    found = walk(package, inputs, modules)
    rows = [
        (
            entry.module or "-",
            entry.operation,
            f"{entry.psnr_db:.1f}",
            f"{entry.lost_db:.1f}",
            f"{entry.largest:.4g}",
            str(entry.overflows),
            entry.name,
        )
        for entry in worst(found, most)
    ]
    write_table(("module", "operation", "dB", "dB lost", "largest", "overflows", "result"), rows)
    outputs = ", ".join(f"{name} {figure:.1f} dB" for name, figure in output_signals(package, found).items())
    print(f"{len(found)} results, {sum(entry.overflows > 0 for entry in found)} of them overflow; {outputs}")
    if not any(entry.lost_db for entry in found):
        print("nothing is lost: the package is float32 throughout", file=sys.stderr)


def _sample(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """One set of inputs; the last, at the end of the schedule's time steps, where half precision costs most."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        count = json.loads(file.metadata()["reference"])["samples"]
        number = _count(variables, "sample", count)
        if number > count:
            raise PlanError(f"sample={number}: there are {count}")
        prefix = f"{number - 1}/input/"
        return {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118


def _count(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name, str(default))
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise PlanError(f"{name}={text}: a whole number from 1 is needed")
    return int(text)
