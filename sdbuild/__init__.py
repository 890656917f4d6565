"""sdbuild: declarative builds of Core ML bundles from Stable Diffusion checkpoints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdbuild.pipeline import Pipeline as Pipeline

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load `Pipeline` when it is first asked for: planning must not wait for torch."""
    if name == "Pipeline":
        from sdbuild.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
