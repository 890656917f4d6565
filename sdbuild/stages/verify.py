"""The verify stage: a package is executed and compared with the original module; a lost signal fails the build.

Inputs: ``package``, the artifact to verify; ``reference``, the original module's answers; ``whole``, the artifact that
a chunked package was split from. Parameters: ``after`` (the stage that made the package), ``component``, ``precision``,
``bits`` and ``method`` (None where weights keep their precision) and ``gates``, which overrule the defaults. The
result is ``verification.json``.

Two questions are asked. *Structure*: is this the same network? Executed in float32, the package must agree with the
original whose weights were rounded as the package's are. *Signal*: what will the device see? Executed with every
half-precision result rounded, it is compared with the original as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sdbuild.compression import compression_of
from sdbuild.compression.look_up_tables import LEAST_SIGNALS
from sdbuild.errors import SdbuildError
from sdbuild.stages import Stage, advice
from sdbuild.stages.notes import write_notes
from sdbuild.stages.parameters import parameters, reads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


@parameters
class Parameters:
    """What is compared, and what must hold.

    Attributes:
        component: what the package is of.
        after: the stage that made it.
        precision: of the build.
        bits: of its weights; None where they keep their precision.
        method: how they were made smaller; None where they were not.
        gates: gate → decibels as an integer or a decimal, over the defaults.
    """

    component: str
    after: str
    precision: Literal["float16", "float32"]
    bits: int | None
    method: str | None
    gates: Mapping[str, int | str]


STAGE = Stage(
    name="verify",
    version=2,
    tools=("coremltools", "numpy", "torch"),
    parameters=Parameters,
    title="signal of {} against the original model",
    group="compare each package with the original model",
    reads="a package and a reference",
    result="figures; or a failed build",
    follows=("convert", "quantize", "chunk", "reference"),
)

DOCUMENT = "verification.json"
DEFAULT_STRUCTURE_DB = 100.0
DEFAULT_SIGNAL_DB = 45.0

_UNLIMITED = 999.0
_WORST_SHOWN = 8


class VerificationError(SdbuildError):
    """A package does not do what the original module does."""


@dataclass(frozen=True)
class Figure:
    """One output, compared over all samples.

    Attributes:
        psnr_db: the lowest 20·log10(max|original| / rmse) of any sample.
        largest_error: the largest absolute difference.
        sample: the sample with the lowest figure.
    """

    psnr_db: float
    largest_error: float
    sample: int


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Verify one artifact.

    Raises:
        VerificationError: a gate failed; the message names component, output, figures and the worst operations.
    """
    answers = _Answers(inputs["reference"] / "samples.safetensors")
    packages = sorted(inputs["package"].glob("*.mlpackage"))
    gates = _gates(params)
    figures_of: dict[str, dict[str, float]] = {}
    failures: list[str] = []

    def judge(question: str, figures: Mapping[str, Figure], overflows: int) -> None:
        gate = gates[question]
        for name, figure in figures.items():
            entry = figures_of.setdefault(name, {})
            entry[question] = _rounded(figure.psnr_db)
            entry[question.replace("_db", "_largest_error")] = float(f"{figure.largest_error:.2g}")
            if figure.psnr_db < gate:
                failures.append(
                    f"{name}: {question.removesuffix('_db')} {_rounded(figure.psnr_db)} dB is below {gate} dB "
                    f"(largest error {figure.largest_error:.2g}, sample {figure.sample})"
                )
        if question != "structure_db" and overflows:
            failures.append(f"{overflows} results overflow half precision")

    questions = [name for name in ("structure_db", "signal_db", "palettized_db") if name in gates]
    for index, question in enumerate(questions):
        precision = "fp32" if question == "structure_db" or params.precision == "float32" else "fp16"
        kind = "rounded" if question == "structure_db" else "exact"
        figures, overflows = _compare(packages, answers, precision, kind, _part(progress, index, len(questions) + 1))
        judge(question, figures, overflows)
    chunked = params.after == "chunk"
    if chunked and not _chunks_equal_whole(packages, inputs["whole"], answers, params.precision):
        failures.append("the chunks do not give the whole model's result to the last bit")
    if failures:
        raise VerificationError(_report(params, failures, figures_of, inputs["package"], packages, answers))
    # What holds is the same on every processor; by how much is not.
    document = {"after": params.after, "samples": answers.count, "gates": gates, "outputs": sorted(figures_of)}
    document |= {"overflows": 0} if questions != ["structure_db"] else {}
    document |= {"chunks_equal_whole": True} if chunked else {}
    (out / DOCUMENT).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_notes(out, {"outputs": figures_of})
    progress(1.0, ", ".join(f"{name} {entry}" for name, entry in figures_of.items()))


class _Answers:
    """The samples of a reference artifact."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        opened: Any = safe_open
        self._file = opened(path, framework="numpy")
        facts = json.loads(self._file.metadata()["reference"])
        self.count: int = facts["samples"]
        self.outputs: list[str] = facts["outputs"]
        self._keys = set(self._file.keys())

    def inputs(self, sample: int) -> Arrays:
        prefix = f"{sample}/input/"
        return {key.removeprefix(prefix): self._file.get_tensor(key) for key in self._keys if key.startswith(prefix)}

    def output(self, sample: int, kind: str, name: str) -> NDArray[Any]:
        """The original's answer; weights that rounding leaves alone have one answer for both kinds."""
        key = f"{sample}/{kind}/{name}"
        value: NDArray[Any] = self._file.get_tensor(key if key in self._keys else f"{sample}/exact/{name}")
        return value


def _gates(params: Parameters) -> dict[str, float]:
    """What must hold for this artifact: the recipe's gates over the defaults."""
    stated = {name: float(value) for name, value in params.gates.items()}
    if params.bits is not None and params.method is not None:
        default = compression_of(params.method, params.bits, None).least_signal
        return {"palettized_db": default, **stated}
    if params.precision == "float32":
        return {"structure_db": stated.get("structure_db", DEFAULT_STRUCTURE_DB)}
    if params.after == "chunk":
        return {"signal_db": stated.get("signal_db", DEFAULT_SIGNAL_DB)}
    return {"structure_db": DEFAULT_STRUCTURE_DB, "signal_db": DEFAULT_SIGNAL_DB, **stated}


def _compare(
    packages: list[Path], answers: _Answers, precision: Any, kind: str, progress: Callable[[float, str], None]
) -> tuple[dict[str, Figure], int]:
    """The worst figure of every output, and the number of overflows, over all samples."""
    import numpy as np

    from sdbuild.coreml.runtime import Audit, Model
    from sdbuild.models.parity import psnr

    models = [Model(package, precision) for package in packages]
    audit = Audit() if precision == "fp16" else None
    figures: dict[str, Figure] = {}
    for sample in range(answers.count):
        progress(sample / answers.count, f"executing in {precision}, sample {sample + 1} of {answers.count}")
        results = execute(models, answers.inputs(sample), audit)
        for name in answers.outputs:
            expected = answers.output(sample, kind, name)
            actual = results[name].astype(np.float64).reshape(expected.shape)
            figure = Figure(psnr(expected, actual), float(np.max(np.abs(expected - actual), initial=0.0)), sample)
            if name not in figures or figure.psnr_db < figures[name].psnr_db:
                figures[name] = figure
    return figures, audit.overflows + audit.nans if audit else 0


def execute(models: list[Any], inputs: Arrays, audit: Any = None) -> Arrays:
    """Run a model, or its chunks one after the other, each fed the inputs and what came before."""
    values = dict(inputs)
    for model in models:
        values |= model.predict(values, audit=audit)
    return values


def _chunks_equal_whole(packages: list[Path], whole: Path, answers: _Answers, precision: str) -> bool:
    import numpy as np

    from sdbuild.coreml.runtime import Model

    mode: Any = "fp16" if precision == "float16" else "fp32"
    inputs = answers.inputs(answers.count - 1)
    (package,) = whole.glob("*.mlpackage")
    expected = execute([Model(package, mode)], inputs)
    actual = execute([Model(part, mode) for part in packages], inputs)
    return all(np.array_equal(expected[name], actual[name], equal_nan=True) for name in answers.outputs)


def _report(
    params: Parameters,
    failures: list[str],
    figures: Mapping[str, Mapping[str, float]],
    artifact: Path,
    packages: list[Path],
    answers: _Answers,
) -> str:
    """What failed, where the signal goes, and what would pass."""
    lines = [f"{params.component} after {params.after} does not do what the original module does:", *failures]
    if params.bits is not None and any(": palettized " in failure for failure in failures):
        lines += advice.worst_tensors(artifact)
        lines.append(advice.what_would_pass(params.component, params.bits, advice.lowest(figures), LEAST_SIGNALS))
        return "\n".join(lines)
    if len(packages) == 1 and params.precision == "float16":
        lines += _costly_operations(artifact, packages[0], answers)
    lines.append(
        f"set precision: {{{params.component}: float32}} if half precision is the cause, lower the gate under "
        "verify: if the loss is meant, or build with verify=off"
    )
    return "\n".join(lines)


def _costly_operations(artifact: Path, package: Path, answers: _Answers) -> Iterator[str]:
    """The operations that lose or overflow most in half precision."""
    from sdbuild.coreml.diagnose import walk, worst

    modules = json.loads((artifact / "modules.json").read_text(encoding="utf-8"))
    yield "the operations that cost most in half precision:"
    for entry in worst(walk(package, answers.inputs(answers.count - 1), modules), _WORST_SHOWN):
        yield (
            f"  {entry.module or entry.name} ({entry.operation}): {entry.psnr_db:.1f} dB, {entry.lost_db:.1f} dB lost, "
            f"largest {entry.largest:.3g}, {entry.overflows} overflows"
        )


def _part(progress: Callable[[float, str], None], index: int, count: int) -> Callable[[float, str], None]:
    return lambda fraction, message: progress((index + fraction) / count, message)


def _rounded(figure: float) -> float:
    """To a tenth of a decibel; equal results are 999."""
    if math.isinf(figure):
        return math.copysign(_UNLIMITED, figure)
    return round(figure, 1)
