"""The rows of bench/worth.py as a table and a picture."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

from bench.curve import COLOURS

NAMES = {"ours": "this gateway", "litellm": "LiteLLM", "nginx": "nginx, hash", "portkey": "Portkey"}
WAYS = {"header": "id in a header", "body": "id in the body", "none": "no id"}
FAULTS = {
    "plain": "no fault",
    "killed": "a provider killed, back cold",
    "saturated": "a provider saturated",
    "redis": "Redis killed, back empty",
    "added": "a fifth provider added",
}
WIDTH, LEFT, RIGHT, LINE, GAP = 680, 200, 90, 18, 12
STYLE = "text{font:12px sans-serif;fill:#555}@media(prefers-color-scheme:dark){text{fill:#bbb}}"


class Row(NamedTuple):
    """What one case measured. `most` is the share that one cache for all would give."""

    gateway: str
    way: str
    fault: str
    share: float
    most: float
    cold: int
    affected: int
    cold_of_affected: int
    dollars: float
    requests: int
    refused: int

    @property
    def cold_for_each(self) -> float:
        """The cold turns for each affected conversation."""
        return self.cold_of_affected / self.affected if self.affected else 0.0


class Bar(NamedTuple):
    """One bar: its name, its length from 0 to 1, what is written at its end, and its colour."""

    name: str
    length: float
    text: str
    colour: str


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table, by fault."""
    lines = ["| fault | gateway | from cache | cold turns for each affected conversation | cost | refused |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    lines += [
        f"| {FAULTS[row.fault]} | {_name(row)} | {row.share:.1%} | {row.cold_for_each:.2f} ({row.affected}) "
        f"| ${row.dollars:.2f} | {row.refused} |"
        for fault in FAULTS
        for row in rows
        if row.fault == fault
    ]
    return "\n".join(lines)


def draw(file: Path, rows: list[Row]) -> None:
    """Draw the share from cache without a fault, and the cold turns that each fault costs."""
    colours = dict(zip(NAMES, COLOURS, strict=True))
    shares = [
        Bar(f"{NAMES[row.gateway]}, {WAYS[row.way]}", row.share, f"{row.share:.1%}", colours[row.gateway])
        for row in rows
        if row.fault == "plain" and row.way != "body"
    ]
    groups = [(f"Input read from prompt caches, no fault (at most {rows[0].most:.1%})", shares)]
    faults = [row for row in rows if row.fault != "plain" and row.way == "header"]
    longest = max((row.cold_for_each for row in faults), default=0) or 1
    groups += [
        (
            f"Cold turns for each affected conversation: {FAULTS[fault]}",
            [
                Bar(NAMES[row.gateway], row.cold_for_each / longest, f"{row.cold_for_each:.2f}", colours[row.gateway])
                for row in faults
                if row.fault == fault
            ],
        )
        for fault in FAULTS
        if fault != "plain"
    ]
    parts, y = [], 0
    for title, bars in (group for group in groups if group[1]):
        y += GAP + LINE
        parts.append(f'<text x="8" y="{y}" style="font-weight:bold">{escape(title)}</text>')
        for bar in bars:
            y += LINE
            width = max(1.0, bar.length * (WIDTH - LEFT - RIGHT))
            parts.append(f'<text x="{LEFT - 8}" y="{y}" text-anchor="end">{escape(bar.name)}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y - 11}" width="{width:.1f}" height="13" fill="{bar.colour}"/>')
            parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{y}">{escape(bar.text)}</text>')
    title = "What stickiness is worth"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + GAP}" role="img" aria-label="{title}">'
    file.write_text(f"{head}<style>{STYLE}</style>{''.join(parts)}</svg>\n")


def _name(row: Row) -> str:
    name = f"{NAMES[row.gateway]}, {WAYS[row.way]}"
    return f"**{name}**" if row.gateway == "ours" else name
