"""`VerifierPort` with helper processes."""

from extsloader.adapters.verifier.port import Verifier

__all__ = ["Verifier"]
