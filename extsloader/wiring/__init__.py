"""The one place that knows which adapter stands behind which port."""

from extsloader.wiring.run import run

__all__ = ["run"]
