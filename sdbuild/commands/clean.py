"""`clean`: take bundles away."""

from doit.cmd_clean import Clean

from sdbuild.commands.session_command import SessionCommand


class CleanCommand(SessionCommand, Clean):  # type: ignore[misc]
    """`doit clean`."""

    name = "clean"
    doc_purpose = "remove bundles from the output folder; the cache keeps everything"
