"""Containers of containerd, in the namespace in which EVE's own services are."""

from extsloader.adapters.containerd.runtime import ContainerdRuntime

__all__ = ["ContainerdRuntime"]
