import subprocess
import sys

import pytest

OURS_FIRST = """
import sys
from sdbuild.coreml import chunk, palettize, proto
assert not {"coremltools", "torch"} & set(sys.modules), "too much is imported"
from coremltools.proto import MIL_pb2, Model_pb2
assert Model_pb2.Model is proto.Model_pb2.Model and MIL_pb2.Operation is proto.MIL_pb2.Operation
"""
THEIRS_FIRST = """
from coremltools.proto import Model_pb2
from sdbuild.coreml import proto
assert proto.Model_pb2 is Model_pb2
"""


@pytest.mark.parametrize("program", [OURS_FIRST, THEIRS_FIRST], ids=["ours first", "coremltools first"])
def test_messages_are_those_of_coremltools_in_either_order(program):
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
