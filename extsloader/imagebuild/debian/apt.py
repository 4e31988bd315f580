"""apt for one architecture: this machine's own, or a private state for another one.

A private state needs neither root nor a foreign architecture in dpkg (apt.conf(5), "Dir").
"""

from dataclasses import dataclass
from pathlib import Path

from extsloader.imagebuild.tools import ARCHITECTURE, run_tool

_CONFIG = """\
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Dir::Cache "{directory}/cache";
Dir::State::lists "{directory}/lists";
Dir::State::status "{directory}/status";
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apt:
    """How to call the programs of apt."""

    environment: tuple[str, ...] = ()  # words for env(1)

    def run(self, argv: list[str], stage: str, *, cwd: Path | None = None, hint: str = "") -> bytes:
        """Run one of apt's programs. Raises MachineError."""
        words = ["env", *self.environment, *argv] if self.environment else argv
        return run_tool(words, stage, cwd=cwd, hint=hint)


def open_apt(architecture: str, cache: Path) -> Apt:
    """Apt for an architecture; the lists of a foreign one are fetched once. Raises MachineError."""
    if architecture == ARCHITECTURE:
        return Apt()
    directory = (cache / f"apt-{architecture}").absolute()
    apt = Apt(environment=(f"APT_CONFIG={directory}/apt.conf",))
    if not (directory / "whole").exists():
        (directory / "lists/partial").mkdir(parents=True, exist_ok=True)
        (directory / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        config = _CONFIG.format(architecture=architecture, directory=directory)
        (directory / "apt.conf").write_text(config)
        hint = "check the network, and that the archive has this architecture"
        apt.run(["apt-get", "-qq", "update"], f"get the lists for {architecture}", hint=hint)
        (directory / "whole").touch()
    return apt
