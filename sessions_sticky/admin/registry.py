"""A project can add content to the pages, in its `admin.py`:

    from sessions_sticky.admin.registry import Panel, register_panel

    register_panel(lambda request: Panel("Costs", "mysite/costs.html", {"costs": ...}))

`sessions_sticky.admin.base` shows how to write a page for `register_pages`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from django.http import HttpRequest
from django.urls import URLPattern
from django.utils.functional import Promise


class Panel(NamedTuple):
    """A section of the overview: its heading (may be empty), and the template and context of its content.

    `is_first` puts it above the figures of the store, and keeps it there while the store is unavailable: it must not
    raise then.
    """

    title: str | Promise
    template: str
    context: dict[str, Any]
    is_first: bool = False


MakePanel = Callable[[HttpRequest], Panel]
MakeNote = Callable[[str, str], str]

Needed = Literal["view", "change", "delete"]


class Section(NamedTuple):
    """An entry of the menu: the name and title of a page, and the required permission."""

    name: str
    title: str | Promise
    needed: Needed = "view"


class Pages(NamedTuple):
    """Pages of a project: their entry in the menu, and the function that lists their URL patterns for a `PageAdmin`."""

    section: Section
    urls: Callable[[Any], list[URLPattern]]


panels: list[MakePanel] = []
pages: list[Pages] = []
notes: list[MakeNote] = []
links: list[tuple[str | Promise, str]] = []
"""Titles, and names of URL patterns."""


def register_panel(make: MakePanel) -> None:
    """Add a panel to the overview. `make` is called for each request of it, every few seconds."""
    panels.append(make)


def register_provider_note(make: MakeNote) -> None:
    """Add a function that says why a provider serves no requests for a model now; empty while it does."""
    notes.append(make)


def register_link(title: str | Promise, url_name: str) -> None:
    """Add a link to the page of help: its title, and the name of the URL pattern."""
    links.append((title, url_name))


def register_pages(section: Section, urls: Callable[[Any], list[URLPattern]]) -> None:
    """Add pages below those of sessions, and an entry of their menu. Call it from a project's `admin.py`."""
    pages.append(Pages(section, urls))


def provider_notes(provider: str, model: str) -> list[str]:
    """Return why a provider serves no requests for a model now, as the project says; empty while it does."""
    return [note for make in notes if (note := make(provider, model))]
