"""The torch side: checkpoints, modules that suit the Neural Engine, and each component's interface."""

from sdbuild.models.build import build
from sdbuild.models.component import ComponentModel
from sdbuild.models.errors import ModelError
from sdbuild.models.parity import psnr
from sdbuild.models.reference import reference

__all__ = ["ComponentModel", "ModelError", "build", "psnr", "reference"]
