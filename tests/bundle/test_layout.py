from __future__ import annotations

from pathlib import Path

from sdbuild.bundle.layout import find_models


def test_models_are_found_without_looking_into_them(tmp_path: Path) -> None:
    for name in ("Unet.mlpackage/Data", "controlnet/A.mlmodelc/x.mlpackage", "other/empty"):
        (tmp_path / name).mkdir(parents=True)
    assert [path.name for path in find_models(tmp_path)] == ["Unet.mlpackage", "A.mlmodelc"]
