"""Where half precision costs signal: a program executed twice in step, in float32 and in float16, result by result."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from sdbuild.coreml.package import Package
from sdbuild.coreml.runtime import Audit, Model

EQUAL_DB = 150.0
"""What equal results count as: more than float32 can tell apart."""

ROUNDED_DB = 80.0
"""About what one rounding to half leaves of a signal: more than that cannot be lost."""

_WAIT_SECONDS = 3600.0


@dataclass(frozen=True)
class OperationSignal:
    """One operation's result in float16 against its result in float32.

    Attributes:
        name: the name of the operation's output.
        operation: the operation's type.
        module: dotted path of the torch module that it came from; empty where it is not known.
        psnr_db: 20·log10(max|float32| / rmse) between the two results; `EQUAL_DB` where they are equal.
        lost_db: what the operation costs, as far as it reaches the outputs: how much less of the signal that arrives
            further on is left here than in the worst of the operation's inputs.
        largest: the largest magnitude in float32.
        overflows: elements that half precision cannot hold.
    """

    name: str
    operation: str
    module: str
    psnr_db: float
    lost_db: float
    largest: float
    overflows: int


class _OtherRunFailedError(Exception):
    """Ends one run after the other has failed."""


def walk(package: Path, inputs: Mapping[str, NDArray[Any]], modules: Mapping[str, str]) -> list[OperationSignal]:
    """Compare every floating-point result of a program in float32 and in float16.

    Both runs go through the program in step, so that only one result of each is kept.

    Args:
        package: an ML Program package.
        inputs: as for `Model.predict`.
        modules: output name → torch module path, as the convert stage writes it.

    Returns:
        One entry for each operation with a floating-point result, in the order of execution.

    Raises:
        RuntimeModelError: the program or the inputs are not what the runtime can execute.
    """
    sources = _sources(package)
    exact: queue.Queue[tuple[str, Tensor] | BaseException | None] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def hand_over(item: tuple[str, Tensor] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                exact.put(item, timeout=0.2)
            except queue.Full:
                continue
            return
        raise _OtherRunFailedError

    def run_exact() -> None:
        try:
            model = Model(package, "fp32")
            model.predict(inputs, observe=lambda name, _, value: hand_over((name, value)) if _is_float(value) else None)
            hand_over(None)
        except _OtherRunFailedError:
            return
        except BaseException as error:
            hand_over(error)

    found: list[OperationSignal] = []
    audit = Audit()

    def compare(name: str, operation: str, value: Tensor) -> None:
        if not _is_float(value):
            return
        item = exact.get(timeout=_WAIT_SECONDS)
        if isinstance(item, BaseException):
            raise item
        assert item is not None
        assert item[0] == name, f"{item[0]} in float32 met {name} in float16"
        entry = audit.operations.get(name)
        found.append(
            OperationSignal(
                name=name,
                operation=operation,
                module=modules.get(name, ""),
                psnr_db=_psnr(item[1], value),
                lost_db=0.0,
                largest=float(item[1].abs().max()) if item[1].numel() else 0.0,
                overflows=entry.overflows if entry else 0,
            )
        )

    thread = threading.Thread(target=run_exact, name="float32 run", daemon=True)
    thread.start()
    try:
        Model(package, "fp16").predict(inputs, observe=compare, audit=audit)
    finally:
        stopped.set()
        thread.join()
    return _with_losses(found, sources)


def worst(signals: list[OperationSignal], count: int) -> list[OperationSignal]:
    """The operations that overflow, then those that lose most."""
    return sorted(signals, key=lambda entry: (-entry.overflows, -entry.lost_db))[:count]


def output_signals(package: Path, signals: list[OperationSignal]) -> dict[str, float]:
    """What is left of the signal in each of a program's outputs, in dB."""
    figures = {entry.name: entry.psnr_db for entry in signals}
    names = [feature.name for feature in Package.open(package).spec.description.output]
    return {name: figures[name] for name in names if name in figures}


def _with_losses(found: list[OperationSignal], sources: Mapping[str, tuple[str, ...]]) -> list[OperationSignal]:
    """Put each loss where it arises.

    A worn result is no loss where its readers do not feel it: a mean of almost zero that is added to ones, a phase that
    a later sum outweighs. So the signal that arrives is followed backwards from the outputs: it is as high as the
    worst reader's, or as the result's own if that is higher.
    """
    readers: dict[str, list[str]] = {}
    for entry in found:
        for source in sources.get(entry.name, ()):
            readers.setdefault(source, []).append(entry.name)
    arriving: dict[str, float] = {}
    for entry in reversed(found):
        felt = min((arriving[reader] for reader in readers.get(entry.name, ())), default=entry.psnr_db)
        arriving[entry.name] = max(felt, entry.psnr_db)

    def lost(entry: OperationSignal) -> float:
        before = min((arriving.get(source, EQUAL_DB) for source in sources.get(entry.name, ())), default=EQUAL_DB)
        return max(min(before, ROUNDED_DB) - arriving[entry.name], 0.0)

    return [replace(entry, lost_db=lost(entry)) for entry in found]


def _is_float(value: Tensor) -> bool:
    return value.is_floating_point()


def _psnr(reference: Tensor, value: Tensor) -> float:
    error = (value - reference).square().mean().sqrt().item() if reference.numel() else 0.0
    if error == 0:
        return EQUAL_DB
    peak = reference.abs().max().item()
    if not math.isfinite(error) or peak == 0:
        return -EQUAL_DB
    return min(20 * math.log10(peak / error), EQUAL_DB)


def _sources(package: Path) -> dict[str, tuple[str, ...]]:
    """Output name → names of the operation's inputs, for every operation of every function."""
    found: dict[str, tuple[str, ...]] = {}
    for function in Package.open(package).spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                names = tuple(
                    argument.name
                    for binding in operation.inputs.values()
                    for argument in binding.arguments
                    if argument.WhichOneof("binding") == "name"
                )
                found.update({output.name: names for output in operation.outputs})
    return found
