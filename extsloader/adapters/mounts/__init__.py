"""Mounts: loop devices, squashfs, overlays and binds by system call, and reading bundles.

Nothing is remembered here: /proc/self/mountinfo is the only truth, so that a new process
finds, completes and undoes what an earlier one left.
"""
