"""Bundles as LinuxKit lays them out, and the plans that are made of them."""

import json
from typing import Any

from extsloader.core.oci import plan_container
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Machine
from extsloader.model.manifest import Profile, Service
from extsloader.model.plan import Bundle, ContainerPlan, MountKind
from extsloader.model.reasons import Problem
from extsloader.model.settings import Ceiling, Settings

IMAGE = "/run/extsloader/images/0123456789ab"
DIGEST = Digest("0123456789ab" + "0" * 52)
RUN = "/run/extsloader"
OWN = "/containers/services/zeta"
UPPER = f"{RUN}/uppers/zeta-0123456789ab"
ROOTFS = f"{RUN}/bundles/zeta-0123456789ab/rootfs"

CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.1",
    "process": {"args": ["/bin/svc"], "cwd": "/", "env": ["PATH=/bin"]},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "/eve/services/zeta"},
}
OVERLAY = {
    "destination": f"{OWN}/rootfs",
    "type": "overlay",
    "source": "overlay",
    "options": [
        "lowerdir=/containers/onboot/000-setup/lower",
        f"upperdir={OWN}/tmp/upper",
        f"workdir={OWN}/tmp/work",
    ],
}
TRUSTED = Settings(ceiling=Ceiling(profile=Profile.TRUSTED))
MACHINE = Machine(arch="amd64", capabilities=frozenset({"CAP_NET_ADMIN", "CAP_CHOWN"}))

NEW = [{"type": kind} for kind in ("mount", "pid")]
MODEST = CONFIG | {"linux": {"namespaces": NEW}}
DEFAULT = Settings()


def plan(
    config: object = CONFIG,
    runtime: object = None,
    machine: Machine = MACHINE,
    settings: Settings = TRUSTED,
    **service: Any,
) -> ContainerPlan | Problem:
    bundle = Bundle(
        service=ServiceName("zeta"),
        config=config if isinstance(config, str) else json.dumps(config),
        runtime=runtime if isinstance(runtime, str) else json.dumps(runtime) if runtime else "",
    )
    wanted = Service(name=ServiceName("zeta"), bundle=OWN[1:], **service)
    return plan_container(bundle, wanted, IMAGE, DIGEST, settings, machine)


def good(*arguments: Any, **named: Any) -> ContainerPlan:
    result = plan(*arguments, **named)
    assert isinstance(result, ContainerPlan), result
    return result


def refused(*arguments: Any, **named: Any) -> Problem:
    result = plan(*arguments, **named)
    assert isinstance(result, Problem), result
    return result


def spec(*arguments: Any, **named: Any) -> Any:
    return json.loads(good(*arguments, **named).spec)


def process(**changes: object) -> dict[str, Any]:
    return CONFIG | {"process": CONFIG["process"] | changes}


def mounts_of(result: ContainerPlan) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (step.target, step.source, step.options)
        for step in result.mounts
        if step.kind in {MountKind.MOUNT, MountKind.BIND}
    ]


def bind(source: str, *options: str, destination: str = "/x") -> dict[str, Any]:
    return {
        "mounts": [{"destination": destination, "source": source, "options": ["bind", *options]}]
    }


def linux(**more: object) -> dict[str, Any]:
    return {"linux": {"namespaces": NEW, **more}}
