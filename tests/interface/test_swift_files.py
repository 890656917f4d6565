from __future__ import annotations

import pytest

from sdbuild.interface.swift.files import base_name, conditioner_name


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("lllyasviel/control_v11p_sd15_canny", "LllyasvielControlV11PSd15Canny"),
        ("lllyasviel/sd-controlnet-canny", "LllyasvielSdControlnetCanny"),
        ("DionTimmer/controlnet_qrcode-control_v1p_sd15", "DiontimmerControlnetQrcodeControlV1PSd15"),
        ("builtin:tiny-controlnet", "TinyControlnet"),
        ("plain", "Plain"),
    ],
)
def test_controlnets_are_named_as_the_swift_package_does(version: str, name: str) -> None:
    assert conditioner_name(version) == name


def test_every_part_has_its_name() -> None:
    assert base_name("unet") == "Unet"
    assert base_name("controlnet-LllyasvielCanny") == "controlnet/LllyasvielCanny"
    assert base_name("t2i_adapter-TinyT2IAdapter") == "t2i_adapter/TinyT2IAdapter"
    with pytest.raises(KeyError):
        base_name("vae")
