"""A project can add content to the pages, in its `admin.py`:

    from sessions_sticky.admin.registry import Panel, register_panel

    register_panel(lambda request: Panel("Costs", "mysite/costs.html", {"costs": ...}))

`sessions_sticky.admin.base` shows how to write a page for `register_pages`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from django.http import HttpRequest
from django.urls import URLPattern

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class Panel(NamedTuple):
    """A section of the overview: its heading (may be empty), and the template and context of its content.

    `is_first` puts it above the figures of the store, and keeps it there while the store is unavailable: it must not
    raise then.
    """

    title: StrOrPromise
    template: str
    context: dict[str, Any]
    is_first: bool = False


MakePanel = Callable[[HttpRequest], Panel]
MakeNote = Callable[[str, str], str]

Needed = Literal["view", "change", "delete"]


class Section(NamedTuple):
    """An entry of the menu: the name and title of a page, and the required permission."""

    name: str
    title: StrOrPromise
    needed: Needed = "view"


class Pages(NamedTuple):
    """Pages of a project: their entry in the menu, and the function that lists their URL patterns for a `PageAdmin`."""

    section: Section
    urls: Callable[[Any], list[URLPattern]]


_panels: list[MakePanel] = []
_pages: list[Pages] = []
_notes: list[MakeNote] = []
_links: list[tuple[StrOrPromise, str]] = []


def register_panel(make: MakePanel) -> None:
    """Add a panel to the overview. `make` is called for each request of it, every few seconds."""
    _panels.append(make)


def register_provider_note(make: MakeNote) -> None:
    """Add a function that says why a provider serves no requests for a model now; empty while it does."""
    _notes.append(make)


def register_link(title: StrOrPromise, url_name: str) -> None:
    """Add a link to the page of help: its title, and the name of the URL pattern."""
    _links.append((title, url_name))


def register_pages(section: Section, urls: Callable[[Any], list[URLPattern]]) -> None:
    """Add pages below those of sessions, and an entry of their menu. Call it from a project's `admin.py`."""
    _pages.append(Pages(section, urls))


def pages() -> list[Pages]:
    """Return the registered pages."""
    return list(_pages)


def provider_notes(provider: str, model: str) -> list[str]:
    """Return why a provider serves no requests for a model now, as the project says; empty while it does."""
    return [note for make in _notes if (note := make(provider, model))]


def links() -> list[tuple[StrOrPromise, str]]:
    """Return the registered links."""
    return list(_links)


def panels(request: HttpRequest) -> list[Panel]:
    """Return the panels for a request."""
    return [make(request) for make in _panels]
