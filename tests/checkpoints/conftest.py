"""The tiny checkpoints that the tests of models make."""

from tests.models.conftest import _small_and_without_gradients, checkpoints, saved

__all__ = ["_small_and_without_gradients", "checkpoints", "saved"]
