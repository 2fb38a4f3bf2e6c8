"""The compiled modules of the gateway, for programs that are forked from a process which imports this module.

Such a process cannot import them: they read settings. To read and unmarshal their files takes a third of the import.
"""

from __future__ import annotations

from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType

PACKAGES = (
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django.db.migrations",
    "drf_spectacular",
    "prometheus_client",
    "rest_framework",
    "sentinel_project",
    "servestatic",
    "sessions_sticky",
)
_read = SourceFileLoader.get_code


def _code_of(package: str) -> dict[str, CodeType]:
    top, *folders = package.split(".")
    spec = PathFinder.find_spec(top)
    assert spec is not None
    assert spec.origin
    files = map(str, Path(spec.origin).parent.joinpath(*folders).rglob("*.py"))
    return {file: code for file in files if (code := _read(SourceFileLoader(file, file), file))}


_compiled = {file: code for package in PACKAGES for file, code in _code_of(package).items()}


def _get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
    return _compiled.get(self.path) or _read(self, fullname)


SourceFileLoader.get_code = _get_code  # type: ignore[method-assign]
