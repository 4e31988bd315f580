"""One service's plan: what to mount, what to tell the runtime, and what cannot be granted.

The layout that LinuxKit gives a bundle is described in docs/adr/0004-runtime.md.
"""

import json
from dataclasses import replace

from extsloader.core.ceiling import exceed, find_profile, harden
from extsloader.core.oci_json import Findings, join, parse
from extsloader.core.oci_mounts import Place, is_below, make_directories, mount_root, read_runtime
from extsloader.core.oci_spec import Spec, write_spec
from extsloader.model.ids import Digest, short
from extsloader.model.machine import Machine
from extsloader.model.manifest import ProbeKind, Profile, Resources, Service
from extsloader.model.plan import Bundle, ContainerPlan, MountKind, MountStep
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Settings

SKELETON = ("dev", "proc", "sys", "etc", "run")


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
    profile = find_profile(settings.ceiling, service)
    check = _check(place, spec, profile)
    mounts = (*mount_root(root, spec.volumes, place), *more, *_notify(place), check)
    if excess := exceed(spec.config, mounts, place.own, profile):
        return _refuse(service, profile, excess)
    return ContainerPlan(
        service=service.name,
        digest=digest,
        bundle_dir=place.bundle_dir,
        notify_dir=place.notify,
        spec=json.dumps(harden(spec.config, profile)),
        mounts=tuple(dict.fromkeys(mounts)),
        resources=resources,
        readiness=service.readiness,
        reduced=tuple(dict.fromkeys(findings.reduced)),
    )


def _check(place: Place, spec: Spec, profile: Profile) -> MountStep:
    """Where the runtime mounts: real directories, or it would do it on the host."""
    paths = [f"{place.rootfs}/{name}/" for name in SKELETON]
    if profile is not Profile.TRUSTED:  # images of old like to mount through /var/run
        for number, mount in enumerate(spec.mounts):
            paths += _on_host(str(mount.get("destination", "")), spec.mounts[:number], place)
            paths += _own(str(mount.get("source", "")), place)
        paths += _on_host(spec.cwd, spec.mounts, place)
    options = tuple(dict.fromkeys(paths))
    return MountStep(kind=MountKind.CHECK, target=place.rootfs, options=options)


def _on_host(path: str, mounts: tuple[dict[str, object], ...], place: Place) -> list[str]:
    """Where a path of the container comes from, if that is the service's own."""
    for mount in reversed(mounts):
        target = str(mount.get("destination", ""))
        if target and is_below(path, target):
            source = str(mount.get("source", ""))
            return _own(source + path.removeprefix(target), place)
    return [place.rootfs + path]


def _own(path: str, place: Place) -> list[str]:
    return [path] if any(is_below(path, own) for own in place.own) else []


def _refuse(service: Service, profile: Profile, excess: tuple[str, ...]) -> Problem:
    return Problem(
        Code.BUNDLE,
        f"cannot grant what {service.name} asks for: beyond profile {profile}: {join(excess)}",
        "let the service ask for less, or name it in ceiling.trusted if its signer may have that",
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
