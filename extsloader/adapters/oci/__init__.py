"""Containers with conmon and an OCI runtime."""

from extsloader.adapters.oci.runtime import OciRuntime

__all__ = ["OciRuntime"]
