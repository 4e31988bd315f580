"""What is left for a later agent."""

from pathlib import Path

import pytest

from extsloader.adapters.oci.processes import Identity
from extsloader.adapters.oci.records import Records
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import Readiness, Resources
from extsloader.model.plan import ContainerPlan

CONMON = Identity(pid=10, started=1, parent=2)
CONTAINER = Identity(pid=11, started=3, parent=10)
DIGEST = Digest("ab" * 32)


def make_plan(name: str) -> ContainerPlan:
    return ContainerPlan(
        service=ServiceName(name),
        digest=DIGEST,
        bundle_dir="/b",
        notify_dir="/n",
        spec='{"ociVersion": "1.0.2"}',
        mounts=(),
        resources=Resources(),
        readiness=Readiness(),
    )


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "containers")


def test_each_container_gets_a_directory_of_its_own(records: Records) -> None:
    first, second = records.make(make_plan("zeta")), records.make(make_plan("zeta"))
    assert first != second
    assert (first / "config.json").read_text() == '{"ociVersion": "1.0.2"}'
    assert set(records.find(ServiceName("zeta"))) == {first, second}


def test_a_name_that_begins_alike_is_another_service(records: Records) -> None:
    records.make(make_plan("zeta-two"))
    assert records.find(ServiceName("zeta")) == ()
    assert records.services_of_others(Digest("")) == ("zeta-two",)


@pytest.mark.parametrize("container", [CONTAINER, None])
def test_what_is_saved_is_loaded(records: Records, container: Identity | None) -> None:
    directory = records.make(make_plan("zeta"))
    assert records.load(directory) is None
    saved = records.save(directory, DIGEST, CONMON, container)
    assert records.load(directory) == saved
    assert saved.container == container


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": 1}', '{"digest": "x"}'])
def test_a_damaged_record_is_no_record(records: Records, text: str) -> None:
    directory = records.make(make_plan("zeta"))
    (directory / "record.json").write_text(text)
    assert records.load(directory) is None


def test_h175_a_record_of_an_earlier_boot_is_no_record(records: Records) -> None:
    directory = records.make(make_plan("zeta"))
    records.save(directory, DIGEST, CONMON, CONTAINER)
    file = directory / "record.json"
    file.write_text(file.read_text().replace(records._boot, "another boot"))
    assert records.load(directory) is None


def test_removing_twice_is_removing_once(records: Records) -> None:
    directory = records.make(make_plan("zeta"))
    records.remove(directory)
    records.remove(directory)
    assert records.services_of_others(Digest("")) == ()
