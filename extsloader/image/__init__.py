"""The image format, `docs/image-format.md`: one module reads and writes each part of it."""
