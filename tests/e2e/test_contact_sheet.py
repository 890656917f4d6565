"""The contact sheet: drawn with every build of a recipe that asks for one, and no more often than it must."""

import json
from pathlib import Path

from PIL import Image

from tests.e2e.program import PHONE, Workspace

SHEET = PHONE | {"contact_sheet": '{prompts: ["a lighthouse at dusk", "a red cube"], bits: [8, 4], steps: 3}'}
WORDS = ("recipe=phone", "verify=off")


def test_a_contact_sheet_shows_every_precision(built: Workspace, tmp_path: Path) -> None:
    work = built.clone(tmp_path)
    work.recipe(SHEET)
    ran = work(*WORDS)
    assert ran.status == 0, ran.err
    # The UNet that the bundle is made from is palettized anew for each column, and nothing is converted twice.
    assert not any(action.startswith("convert") for action in ran.executed), ran.executed
    assert {"quantize:unet-8-bits", "quantize:unet-4-bits", "sheet:contact-sheet"} <= set(ran.executed)
    place = work.folder / "build" / "phone" / "contact-sheet"
    assert f"sheet: {place.relative_to(work.folder)}" in ran.err

    figures = json.loads((place / "figures.json").read_text())
    assert list(figures["columns"]) == ["float16", "8-bits", "4-bits"]
    assert {entry["client"] for entry in figures["columns"].values()} == {"swift"}
    ratios = {column: min(entry["psnr_db"]) for column, entry in figures["columns"].items()}
    assert ratios["float16"] > ratios["8-bits"] > ratios["4-bits"] > 0
    with Image.open(place / "contact-sheet.png") as sheet:
        assert sheet.width > 4 * 100
        assert sheet.height > 2 * 100
        assert len(sheet.convert("RGB").getcolors(1 << 20) or ()) > 100

    again = work(*WORDS)
    assert (again.status, again.executed) == (0, [])
    (place / "contact-sheet.png").chmod(0o644)
    (place / "contact-sheet.png").unlink()
    mended = work(*WORDS)
    assert (mended.status, mended.executed) == (0, [])
    assert (place / "contact-sheet.png").is_file()

    work.recipe(SHEET, contact_sheet='{prompts: ["a lighthouse at dusk"], bits: [8, 4], steps: 2}')
    assert work("plan", *WORDS).to_run() == ["sheet:contact-sheet"]
    # The bundle itself is the one without a sheet.
    assert work("bundle:iphone-15-pro", *WORDS).executed == []
