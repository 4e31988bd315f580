"""Which adapter stands behind which port."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from extsloader.adapters.cgroups.factory import open_cgroups
from extsloader.adapters.clock import read_moment
from extsloader.adapters.directory import FileSources
from extsloader.adapters.journal import Journal
from extsloader.adapters.machine_facts import Device, read_revoked_images
from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.oci.runtime import OciRuntime
from extsloader.adapters.readiness import ServiceReadiness
from extsloader.adapters.service_log import ServiceLogs
from extsloader.adapters.state_file import StateFile
from extsloader.adapters.store import Store
from extsloader.adapters.tpm import TpmIndex, TpmRegister, find_no_tpm
from extsloader.adapters.udev import UdevSources
from extsloader.adapters.verifier import Verifier
from extsloader.core.history import is_possible
from extsloader.model.history import History
from extsloader.model.machine import Machine
from extsloader.model.pillar import AGENT
from extsloader.model.settings import Settings
from extsloader.ports.machine import CgroupPort, Ports, SourcePort
from extsloader.ports.pillar import PillarPorts
from extsloader.runtime.memory_work import decode_clock, decode_memory
from extsloader.runtime.pillar import PillarLink
from extsloader.settings.start import Process

if TYPE_CHECKING:
    from extsloader.adapters.containerd import ContainerdRuntime


def build_ports(
    settings: Settings, machine: Machine, checking: Process, load: Callable[[], Settings]
) -> Ports:
    """The real machine. Raises MachineError where a program or a directory is missing."""
    paths = settings.paths
    store = Store(paths.store)
    store.ensure()
    sources: list[SourcePort] = [FileSources(paths.watch, paths.store)]
    if settings.udev:
        sources.append(UdevSources())
    verifier = Verifier(
        keys=paths.keys,
        root_hash=paths.root_hash,
        store=paths.store,
        machine=machine,
        timeouts=settings.timeouts,
        files=settings.filters.files,
        wall=lambda: read_moment().wall,
        python=sys.executable,
    )
    verifier.keep(*checking)
    cgroups = open_cgroups(settings.cgroup, settings.limits)
    runtime = open_runtime(settings, machine, cgroups)
    tpm = not find_no_tpm()
    return Ports(
        sources={source.provider: source for source in sources},
        verifier=verifier,
        mounts=Mounts(paths.run),
        cgroups=cgroups,
        runtime=runtime,
        readiness=ServiceReadiness(runtime.execute),
        store=store,
        device=Device(),
        history=StateFile(
            path=Path(paths.state) / "history",
            kind="history",
            decode=decode_history,
            limit=1 << 20,
        ),
        load_settings=load,
        read_revoked=partial(read_revoked_images, paths.keys),
        memory=tuple(
            StateFile(path=Path(path), kind="images", decode=decode_memory) for path in paths.memory
        ),
        seal=TpmIndex(decode=decode_memory) if tpm else None,
        register=TpmRegister(boot=machine.boot, log=Path(paths.run)) if tpm else None,
        clock=StateFile(path=Path(paths.clock), kind="clock", decode=decode_clock),
    )


def open_runtime(
    settings: Settings, machine: Machine, cgroups: CgroupPort
) -> "OciRuntime | ContainerdRuntime":
    """The backend that is configured. Raises MachineError where a program is missing."""
    if settings.runtime != "containerd":
        return OciRuntime(settings, machine, open_logs(settings))
    # Other devices need not pay for h2.
    from extsloader.adapters.containerd import ContainerdRuntime  # noqa: PLC0415

    return ContainerdRuntime(settings, cgroups, open_logs(settings))


def open_pillar(settings: Settings, journal: Journal) -> PillarLink | None:
    """Be one of Pillar's agents, if that is wanted. Raises MachineError(E_BUSY) beside another."""
    if not settings.pillar.enabled:
        return None
    from extsloader.adapters.agent_files import AgentFiles  # noqa: PLC0415 - no other device
    from extsloader.adapters.pubsub import Publisher, Subscriber, Topic  # noqa: PLC0415 - has it

    run = settings.paths.pillar
    files = AgentFiles(run)
    ports = PillarPorts(
        publisher=Publisher(Topic(agent=AGENT, name="ExtsloaderStatus", run=run)),
        subscriber=Subscriber(Topic(agent="zedagent", name="ConfigItemValueMap", run=run)),
        files=files,
    )
    link = PillarLink(settings, files.read_slot(), ports, read_moment, journal.log)
    link.begin()
    return link


def open_logs(settings: Settings) -> ServiceLogs:
    """All that it knows lies in files, so there may be several."""
    memlogd = settings.paths.memlogd if settings.logs.to == "auto" else ""
    return ServiceLogs(settings.paths.logs, settings.logs.size, memlogd)


def decode_history(payload: bytes) -> History:
    """Raises ValueError."""
    history = msgspec.json.decode(payload, type=History)
    if is_possible(history):
        return history
    raise ValueError("it says what cannot be")
