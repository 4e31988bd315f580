"""A device that accepts key 1."""

import pytest

from extsloader.model.helper import Request
from tests.fakes import builders, images
from tests.hostile.judge import NOW


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Request:
    keys = images.key_directory(tmp_path_factory.mktemp("device") / "keys", 1)
    return Request(source=builders.source(), machine=images.MACHINE, keys=keys, wall=NOW)
