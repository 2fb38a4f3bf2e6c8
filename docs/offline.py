"""MkDocs hook: fail the build if a page loads anything from another host."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import PluginError

LOADED = re.compile(r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)""")
STYLES = re.compile(r"""<link\b(?![^>]*\brel=["']?canonical)[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)""")


def on_post_page(output: str, page: Any, **kwargs: Any) -> str:
    """Return the page unchanged; raise `PluginError` if it loads a script, style, picture or font from another host."""
    if foreign := LOADED.findall(output) + STYLES.findall(output):
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {', '.join(foreign)}")
    return output
