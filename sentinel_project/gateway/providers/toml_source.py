"""The text of a TOML file with a table `[[provider]]` for each entry: its values, and the lines where they are."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Collection
from typing import Any, NamedTuple

from sessions_sticky.setting_values import similar_name

_TABLE = re.compile(r"\s*\[\[\s*(?:provider|\"provider\"|'provider')\s*\]\]")
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Place(NamedTuple):
    """One entry: its values as TOML has them, its number in the file, and the lines that it may be on."""

    path: str
    number: int
    values: dict[str, Any]
    lines: dict[int, str]

    def error(self, key: str, problem: str, item: str = "") -> ValueError:
        """Return the error about a key, or one `item` of its list or table: the key and its `problem`."""
        name, line = self.values.get("name"), self.line(key, item)
        where = self.path if line is None else f"{self.path}, line {line}"
        title = f' "{name}"' if isinstance(name, str) and name.isprintable() else ""
        shown = key if key.isprintable() else repr(key)
        return ValueError(f"{where}: [[provider]] number {self.number}{title}: {shown} {problem}.")

    def line(self, key: str, item: str = "") -> int | None:
        """Return the line of a key and its item, else the entry's first one; None when the lines are not known."""
        name = rf"[\"']?{re.escape(key)}[\"']?"
        begins = re.compile(rf"\s*(?:{name}\s*[=.]|\[\s*[\"']?provider[\"']?\s*\.\s*{name}\s*\])")
        found = next((number for number, text in self.lines.items() if begins.match(text)), None)
        if found is None:
            return next(iter(self.lines), None)
        after = (number for number, text in self.lines.items() if number >= found and item in text)
        return next(after, found) if item else found


def parse(path: str, data: bytes) -> list[Place]:
    """Return the entries of a file. Raises `ValueError` when it is not TOML, or has other tables or none."""
    data = data.removeprefix(codecs.BOM_UTF8)  # editors on Windows write one
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: the file must be UTF-8, not byte {data[exc.start]:#04x}.") from None
    except tomllib.TOMLDecodeError as exc:
        position = _POSITION.search(str(exc))
        line = int(position[1]) if position and position[1] else text.rstrip("\n").count("\n") + 1
        reason = _POSITION.sub("", str(exc))
        raise ValueError(f"{path}, line {line}: the file must be TOML: {reason}.") from None
    except RecursionError:
        raise ValueError(f"{path}: the file must be TOML of few levels, not nested hundreds of times.") from None
    lines = text.split("\n")
    entries = document.pop("provider", None)
    for key in document:
        line = _line_of(lines, key)
        raise ValueError(f"{path}, line {line}: {key} is not known. The file may have [[provider]] tables only.")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        where = path if entries is None else f"{path}, line {_line_of(lines, 'provider')}"
        raise ValueError(f"{where}: the file must have a table [[provider]], in two brackets, for each provider.")
    starts = [number for number, line in enumerate(lines, 1) if _TABLE.match(line)]
    if len(starts) != len(entries):  # written as an inline list, or quoted in a text of several lines
        return [Place(path, number, entry, {}) for number, entry in enumerate(entries, 1)]
    ends = [*starts[1:], len(lines) + 1]
    return [
        Place(path, number, entry, {line: lines[line - 1] for line in range(start, end)})
        for number, (entry, start, end) in enumerate(zip(entries, starts, ends, strict=True), 1)
    ]


def _line_of(lines: list[str], key: str) -> int:
    """Return the line of a key at the top of a file; the first one where it is written in another way."""
    begins = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}\b")
    return next((number for number, line in enumerate(lines, 1) if begins.match(line)), 1)


def suggestion(key: str, known: Collection[str]) -> str:
    """Return words that name the known key most like another, or all of them."""
    similar = similar_name(key, known)
    return f"did you mean {similar}" if similar else f"allowed are {', '.join(known)}"
