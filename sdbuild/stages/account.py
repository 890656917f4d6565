"""The account stage: what becomes of everything in a bundle's sources, for `bundle.json` to say.

Inputs: every source that the bundle is made from, by its component or name. Parameters: ``sources``, for each of these
roles what `sdbuild.checkpoints.account.sources.Asked` holds. The result is ``account.json``: for each
role how much is used, and by name, with the reason, what is not. Nothing is converted before it: what cannot be used
ends the build here at the latest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.account import Account
from sdbuild.checkpoints.account.sources import Asked, account_of
from sdbuild.checkpoints.files import files_in
from sdbuild.checkpoints.pickle_header import pickle_header
from sdbuild.errors import SdbuildError
from sdbuild.stages import Stage
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """What is asked of the sources.

    Attributes:
        sources: role → the fields of `sdbuild.checkpoints.account.sources.Asked`.
    """

    sources: Mapping[str, Mapping[str, Any]]


STAGE = Stage(
    name="account",
    version=1,
    parameters=Parameters,
    title="what becomes of everything in the sources",
    group="tell what becomes of everything in the sources",
    reads="every source",
    result="what of them is used, and what is not, with the reason",
    follows=("source", "embed"),
)

FILE = "account.json"
_SHOWN = 8


class AccountError(SdbuildError):
    """A source holds what cannot be used, or lacks what is needed."""

    exit_status = 2


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Read every source's headers and JSON.

    Raises:
        AccountError: names what is refused.
    """
    document: dict[str, Any] = {}
    refused: list[str] = []
    for index, (role, folder) in enumerate(sorted(inputs.items())):
        progress(index / len(inputs), role)
        account = account_of(Asked(**params.sources[role]), files_in(folder), read_pickle=pickle_header)
        refused += [f"{account.source}: {entry.place}: {entry.sentence}" for entry in account.refused]
        document[role] = _described(account)
    if refused:
        more = f"\n  and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise AccountError("what the sources hold cannot be used:\n  " + "\n  ".join(refused[:_SHOWN]) + more)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    (out / FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
    progress(1.0, f"{len(inputs)} sources")


def _described(account: Account) -> dict[str, Any]:
    return {"source": account.source, "counts": account.counts, "not_used": account.not_used()}
