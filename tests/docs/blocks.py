"""The fenced code blocks of the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"(]+?)(?: \(([^)]*)\))?\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
"""A command, on several lines where they end with a backslash, and what it prints."""


class Block(NamedTuple):
    """A block of a page: `path` is the file that its title names, empty without; `how` the words in parentheses."""

    language: str
    path: str
    how: str
    text: str

    def apply(self, folder: Path) -> None:
        """Do to the file what the title says; raises `ValueError` for words it does not know."""
        file = folder / self.path
        file.parent.mkdir(parents=True, exist_ok=True)
        if self.how == "add at the end":
            file.write_text(f"{file.read_text()}\n{self.text}")
        elif self.how == "change this line":
            name = re.escape(self.text.partition(" =")[0])
            changed, times = re.subn(rf"^{name} = .*\n", lambda _: self.text, file.read_text(), flags=re.MULTILINE)
            if times != 1:
                raise ValueError(f"{self.path} has {times} lines to be changed into {self.text!r}")
            file.write_text(changed)
        elif self.how:
            raise ValueError(f"The title of a block of {self.path} has the unknown instruction {self.how!r}")
        else:
            file.write_text(self.text)

    def dialogue(self) -> list[tuple[str, str]]:
        """Return the commands of a console block, each with what it prints."""
        return [(re.sub(r"\\\n *", "", command), output) for command, output in COMMAND.findall(self.text)]


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, given by its path in docs/."""
    found = FENCE.findall((DOCS / page).read_text())
    return [Block(*parts) for parts in found]
