"""What is wrong with one setting, as it goes from the checking process to the daemon."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """`key` is dotted, "" when the whole file is meant."""

    file: str
    key: str
    expected: str
    got: str
    next_step: str = ""

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.key) if part)
        sentence = f"{place}: expected {self.expected}, got {self.got}"
        return f"{sentence} ({self.next_step})" if self.next_step else sentence
