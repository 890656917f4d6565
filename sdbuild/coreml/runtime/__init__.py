"""A reference runtime for ML Programs: it executes a package's own bytes on any machine with torch's CPU kernels."""

from sdbuild.coreml.runtime.audit import Audit, OperationAudit
from sdbuild.coreml.runtime.description import Feature
from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.model import Model

__all__ = ["Audit", "Feature", "Model", "OperationAudit", "RuntimeModelError"]
