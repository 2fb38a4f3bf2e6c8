"""A small line chart as SVG, readable on a light and a dark page."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 64, 44, 40, 110
COLOURS = ("#2f7ed8", "#d9822b", "#2a9d5c", "#b0479a")


def draw(file: Path, title: str, curves: dict[str, list[tuple[int, float]]]) -> None:
    """Draw named curves of (x, y) over a logarithmic x."""
    xs = sorted({x for points in curves.values() for x, _ in points})
    top = max(y for points in curves.values() for _, y in points)
    step = 10 ** math.floor(math.log10(top)) / 2
    ceiling = math.ceil(top / step) * step

    def at_x(x: float) -> float:
        share = (math.log(x) - math.log(xs[0])) / (math.log(xs[-1]) - math.log(xs[0]))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - y / ceiling * (HEIGHT - BOTTOM - TOP)

    parts = [f'<text x="{LEFT}" y="22" font-weight="bold">{escape(title)}</text>']
    for n in range(round(ceiling / step) + 1):
        y = at_y(n * step)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#8888" stroke-width="0.5"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{n * step:,.0f}</text>')
    for x in xs:
        parts.append(f'<text x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,}</text>')
    parts.append(f'<text x="{(WIDTH - RIGHT + LEFT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">connections</text>')
    for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
        path = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.extend(f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points)
        x, y = points[-1]
        parts.append(f'<text x="{at_x(x) + 8:.1f}" y="{at_y(y) + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    style = "text{font:12px sans-serif;fill:#555}@media(prefers-color-scheme:dark){text{fill:#bbb}}"
    view = f"0 0 {WIDTH} {HEIGHT}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" role="img" aria-label="{escape(title)}">'
    file.write_text(f"{head}<style>{style}</style>{''.join(parts)}</svg>\n")
