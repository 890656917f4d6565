"""sdbuild: declarative builds of Core ML bundles from Stable Diffusion checkpoints."""

__version__ = "0.1.0"
