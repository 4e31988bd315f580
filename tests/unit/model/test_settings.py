"""Where things are."""

from extsloader.model.settings import Paths


def test_all_paths_move_below_another_root() -> None:
    paths = Paths(watch=("/persist/a.img",)).below("/tmp/root/")
    assert paths.keys == "/tmp/root/etc/extsloader/keys"
    assert paths.watch == ("/tmp/root/persist/a.img",)
    assert paths.socket == "/tmp/root/run/extsloader/extsloader.sock"
    assert paths.store == "/tmp/root/persist/extsloader/store"


def test_the_root_itself_moves_nothing() -> None:
    assert Paths().below("/") == Paths()
