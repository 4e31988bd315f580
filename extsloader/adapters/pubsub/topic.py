"""Where a publication has its socket and its files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A Go type that an agent publishes; `run` is the directory of all agents."""

    agent: str
    name: str
    run: str = "/run"

    @property
    def socket(self) -> Path:
        """What subscribers connect to."""
        return Path(self.run, self.agent, f"{self.name}.sock")

    @property
    def directory(self) -> Path:
        """The items as files: `<key>.json`."""
        return Path(self.run, self.agent, self.name)
