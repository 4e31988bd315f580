"""Only the image of the running slot is looked for."""

import pytest

from extsloader.core.slot import narrow
from extsloader.model.settings import Paths, Settings


@pytest.mark.parametrize(("slot", "own"), [("IMGA", "ext-imga.img"), ("IMGB", "ext-imgb.img")])
def test_the_other_slot_s_image_is_left_alone(slot: str, own: str) -> None:
    found = narrow(Settings(), slot)
    assert found.paths.watch == (f"/persist/{own}",)
    assert found.filters.files == ("rootfs-pkgs.img", own, "pkgs.img")


@pytest.mark.parametrize("slot", ["", "RAM", "IMGC"])
def test_an_unknown_slot_is_taken_for_neither(slot: str) -> None:
    assert narrow(Settings(), slot) == Settings()


def test_other_files_and_directories_stay() -> None:
    paths = Paths(watch=("/mnt/x.img", "/persist", "/mnt/ext-imga.img"))
    assert narrow(Settings(paths=paths), "IMGB").paths.watch == ("/mnt/x.img", "/persist")
