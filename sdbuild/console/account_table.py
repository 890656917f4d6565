"""What `plan` says of the sources: how much of each is used, and what is left out that might matter."""

from typing import TextIO

from sdbuild.checkpoints.account import Use
from sdbuild.console.tables import write_table
from sdbuild.plan.accounts import Accounts


def show_accounts(accounts: Accounts, stream: TextIO | None = None) -> None:
    """Write a row for each source whose files are here, then a line for each warning."""
    read = accounts.read()
    if not read:
        return
    rows = [
        (role, account.source, *(str(account.counts.get(use, 0)) for use in (Use.USED, Use.HARMLESS, Use.WARNED)))
        for role, account in sorted(read.items())
    ]
    print(file=stream)
    write_table(("source", "of", "used", "harmless", "warned"), rows, stream)
    for warning in accounts.warnings():
        print(f"warning: {warning}", file=stream)
