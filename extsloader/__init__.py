"""The agent of a split root file system: finds, verifies, mounts and runs the pkgs image."""

__version__ = "0.1.0"
