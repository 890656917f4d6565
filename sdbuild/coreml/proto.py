"""The messages of Core ML's model format, without the rest of coremltools.

`import coremltools` takes four seconds and 200 MB, because it imports torch, transformers and the conversion of
everything. Reading, palettizing or splitting a package needs nothing but the generated message classes, which stand
alone in its folder `proto`. They are imported from there under a name of ours. Message classes belong to protobuf's
descriptor pool, so that coremltools, imported later in the same process, gets the very same classes.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "sdbuild.coreml._messages"


def _package() -> str:
    if "coremltools" in sys.modules or (found := find_spec("coremltools")) is None or found.origin is None:
        return "coremltools.proto"
    package = ModuleType(_NAME)
    package.__path__ = [str(Path(found.origin).parent / "proto")]
    sys.modules[_NAME] = package
    return _NAME


_FROM = _package()
Model_pb2: Any = import_module(f"{_FROM}.Model_pb2")
MIL_pb2: Any = import_module(f"{_FROM}.MIL_pb2")
FeatureTypes_pb2: Any = import_module(f"{_FROM}.FeatureTypes_pb2")
