"""An account of what was read: every thing in a source is used, known to be harmless, warned of, or refused by name.

`entry` is the form. `settings` judges configurations by the tables in `networks`, `towers` and `schedules`; `tensors`
judges names and shapes; `index` and `tokenizers` the files around them; `sources` is the entrance. Nothing here needs
torch or reads a weight: headers and JSON are enough, so that all of it can be said before any conversion.
"""

from sdbuild.checkpoints.account.entry import Account, Entry, Kind, Use

__all__ = ["Account", "Entry", "Kind", "Use"]
