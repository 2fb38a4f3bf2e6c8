"""Writes docs/licences.md: under which licence each package of requirements.txt is, from its own metadata.

    python docs/licences.py

tests/test_licences.py fails when a package is new and not listed, or its licence is none that is allowed.
"""

from __future__ import annotations

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
ALLOWED = {"MIT", "MIT-0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0", "CNRI-Python", "MPL-2.0"}
"""All let anybody use a package in a service, closed or open; MPL-2.0 wants changes to its own files shared."""
SPDX = {
    r"Mozilla Public License 2\.0.*": "MPL-2.0",
    r"Apache( Software)?( License)?,?( Version)? ?(2\.0)?": "Apache-2.0",
    r"BSD 3-Clause( License)?": "BSD-3-Clause",
    r"BSD 2-Clause( License)?": "BSD-2-Clause",
    r"BSD( License)?": "BSD",
    r"MIT( License| style)?": "MIT",
    r"Python Software Foundation License": "PSF-2.0",
}
SAID_ELSEWHERE = {"axe-playwright-python": "MIT"}
"""What the metadata leaves out, from the licence file; it brings axe-core along, which is under MPL-2.0."""
NOT_HERE = {"async-timeout": "Apache-2.0", "colorama": "BSD-3-Clause", "tzdata": "Apache-2.0"}
"""Of packages that other platforms or Pythons need."""
HEAD = f"""\
# Licences of what requirements.txt installs

Made by `python docs/licences.py` from the packages' own metadata. A package under any other licence than
{", ".join(sorted(ALLOWED))} fails `tests/test_licences.py`.
Only the first parts of requirements.in run in production; the app alone (`pip install sessions_sticky`) needs `django`,
`django-redis`, `msgspec` and `redis[hiredis]`.

| package | licence |
| --- | --- |
"""


def names() -> list[str]:
    """Return the packages of requirements.txt, for all platforms but WebAssembly and all Pythons."""
    found = re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==(.*)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    return sorted({name for name, rest in found if "sys_platform == 'emscripten'" not in rest})


def licence(name: str) -> str:
    """Return an SPDX expression, as far as the package says one; empty when it says nothing."""
    try:
        found = cast("Message", metadata(name))
    except PackageNotFoundError:
        return NOT_HERE.get(name) or SAID_ELSEWHERE.get(name, "")
    if expression := found.get("License-Expression"):
        return str(expression)
    classifiers = [each.rpartition(" :: ")[2] for each in found.get_all("Classifier", []) if each.startswith("License")]
    for text in (str(found.get("License", "")).partition("\n")[0], *classifiers):
        known = [_spdx(each) for each in text.split(" OR ")]
        if all(known):
            return " OR ".join(known)
    return SAID_ELSEWHERE.get(name, "")


def _spdx(text: str) -> str:
    text = text.strip().removesuffix(" Copyright")
    if text in ALLOWED:
        return text
    return next((spdx for pattern, spdx in SPDX.items() if re.fullmatch(pattern, text)), "")


def page() -> str:
    """Return the page."""
    return HEAD + "".join(f"| {name} | {licence(name)} |\n" for name in names())


if __name__ == "__main__":
    PAGE.write_text(page())
