from __future__ import annotations

import json
from pathlib import Path

from sdbuild.bundle.host import write_build_host


def test_the_host_is_described_beside_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "build-host.json"
    write_build_host(path, "ab", {"convert:unet": {"seconds": 1.5}})
    document = json.loads(path.read_text())
    assert document["bundle"] == "sha256:ab"
    assert document["actions"] == {"convert:unet": {"seconds": 1.5}}
    assert "coremltools" in document["tools"]
    assert document["system"]
