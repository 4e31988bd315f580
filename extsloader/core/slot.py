"""EVE's two slots: each core file system has its own image beside it in /persist.

An update writes the image of the other slot while this one runs, and only the core of that slot
may use it.
"""

from dataclasses import replace

from extsloader.model.settings import Settings

IMAGES = {"IMGA": "ext-imga.img", "IMGB": "ext-imgb.img"}


def narrow(settings: Settings, slot: str) -> Settings:
    """The settings without the files of the other slot; the same where the slot is not known."""
    if slot not in IMAGES:
        return settings
    others = {name for owner, name in IMAGES.items() if owner != slot}
    watch = tuple(p for p in settings.paths.watch if p.rpartition("/")[2] not in others)
    files = tuple(name for name in settings.filters.files if name not in others)
    return replace(
        settings,
        paths=replace(settings.paths, watch=watch),
        filters=replace(settings.filters, files=files),
    )
