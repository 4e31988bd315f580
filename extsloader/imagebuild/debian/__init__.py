"""Root file systems from locked Debian packages."""
