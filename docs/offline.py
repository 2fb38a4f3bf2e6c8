"""Check a built site: `python docs/offline.py FOLDER` fails if a page loads anything from another host."""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOADED = re.compile(r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)""")
STYLES = re.compile(r"""<link\b(?![^>]*\brel=["']?canonical)[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)""")


def main(folder: Path) -> None:
    """Exit with the pages that load a script, style, picture or font from another host, and what they load."""
    pages = sorted(folder.rglob("*.html"))
    if not pages:
        sys.exit(f"{folder} has no pages")
    found = {page: LOADED.findall(text) + STYLES.findall(text) for page in pages for text in [page.read_text()]}
    if foreign := {str(page): hosts for page, hosts in found.items() if hosts}:
        sys.exit("\n".join(f"{page} loads from elsewhere: {', '.join(hosts)}" for page, hosts in foreign.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
