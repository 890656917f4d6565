from __future__ import annotations

from pathlib import Path

import pytest

from sdbuild.checkpoints.card import Card, read_card

CARD = "---\nlicense: {}\ntags:\n- art\n---\n\n# A model\n\n---\nlicense: wrong\n---\n"


def test_nothing_said(tmp_path: Path) -> None:
    assert read_card(tmp_path) == Card()


@pytest.mark.parametrize(
    ("files", "license_"),
    [
        ({"README.md": CARD.format("creativeml-openrail-m")}, "creativeml-openrail-m"),
        ({"README.md": CARD.format("other\nlicense_name: own-ai\nlicense_link: LICENSE.md")}, "own-ai (LICENSE.md)"),
        ({"README.md": CARD.format("other"), "LICENSE": "x"}, "other"),
        ({"README.md": "# No front matter\n", "LICENSE": "\n  MIT License\n\nCopyright"}, "MIT License"),
        ({"LICENSE.md": "# CreativeML Open RAIL++-M License\n"}, "CreativeML Open RAIL++-M License"),
        ({"README.md": "---\n: [broken\n---\n"}, ""),
        ({"README.md": "---\n- a list\n---\n"}, ""),
    ],
)
def test_the_license(tmp_path: Path, files: dict[str, str], license_: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert read_card(tmp_path).license == license_


@pytest.mark.parametrize(
    ("config", "card"),
    [
        ('{"_name_or_path": "CompVis/stable-diffusion-v1-4"}', Card("CompVis", "", "CompVis/stable-diffusion-v1-4")),
        ('{"_name_or_path": "/home/somebody/model/unet"}', Card()),
        ('{"_name_or_path": "./unet"}', Card()),
        ('["no object"]', Card()),
        ("no JSON", Card()),
    ],
)
def test_author_and_version(tmp_path: Path, config: str, card: Card) -> None:
    (tmp_path / "config.json").write_text(config)
    assert read_card(tmp_path) == card
