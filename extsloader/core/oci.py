"""One service's plan: what to mount, what to tell the runtime, and what cannot be granted.

The layout that LinuxKit gives a bundle is described in docs/adr/0004-runtime.md.
"""

import json
from dataclasses import replace

from extsloader.core.oci_json import Findings, parse
from extsloader.core.oci_mounts import Place, make_directories, mount_root, read_runtime
from extsloader.core.oci_spec import write_spec
from extsloader.model.ids import Digest, short
from extsloader.model.machine import Machine
from extsloader.model.manifest import ProbeKind, Resources, Service
from extsloader.model.plan import Bundle, ContainerPlan, MountStep
from extsloader.model.reasons import Problem
from extsloader.model.settings import Limits, Settings


def plan_container(  # noqa: PLR0913, PLR0917 - the six facts that a plan is made of
    bundle: Bundle,
    service: Service,
    image_mountpoint: str,
    digest: Digest,
    settings: Settings,
    machine: Machine,
) -> ContainerPlan | Problem:
    """A plan that is complete, or one problem (E_BUNDLE, E_PATH) that names all that is wrong."""
    resources = _fill(service.resources, settings.limits)
    place = Place(
        service=replace(service, resources=resources),
        image=image_mountpoint,
        run=settings.paths.run,
        state=settings.paths.state,
        digest=short(digest),
        upper_size=settings.limits.upper,
    )
    findings = Findings()
    config = parse("config.json", bundle.config, findings)
    runtime = parse("runtime.json", bundle.runtime or "{}", findings)
    if problem := findings.problem(service.name):
        return problem
    spec = write_spec(config, place, machine, settings.cgroup)
    root, more = read_runtime(runtime, place, readonly=spec.readonly)
    if problem := findings.problem(service.name):
        return problem
    mounts = mount_root(root, spec.volumes, place) + more + _notify(place)
    return ContainerPlan(
        service=service.name,
        digest=digest,
        bundle_dir=place.bundle_dir,
        notify_dir=place.notify,
        spec=json.dumps(spec.config),
        mounts=tuple(dict.fromkeys(mounts)),
        resources=resources,
        readiness=service.readiness,
        reduced=tuple(dict.fromkeys(findings.reduced)),
    )


def _notify(place: Place) -> list[MountStep]:
    if place.service.readiness.kind is not ProbeKind.NOTIFY:
        return []
    return make_directories(place.notify, place.run)


def _fill(resources: Resources, limits: Limits) -> Resources:
    return replace(
        resources,
        memory=limits.service_memory if resources.memory is None else resources.memory,
        pids=limits.service_pids if resources.pids is None else resources.pids,
    )
