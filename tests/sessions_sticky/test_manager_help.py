"""What editors and `help()` show of the manager."""

from __future__ import annotations

import inspect
import pydoc

import pytest

from sessions_sticky import SessionManager, SessionQuery, sessions


def async_forms(owner: type) -> list[tuple[type, str]]:
    names = [name for name, value in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")]
    return [(owner, name) for name in names if name.startswith("a") and name[1:] in names]


@pytest.mark.parametrize(("owner", "name"), async_forms(SessionManager) + async_forms(SessionQuery))
def test_async_form_has_the_signature_of_its_method_and_names_or_describes_it(owner: type, name: str) -> None:
    method, form = getattr(owner, name[1:]), getattr(owner, name)
    assert inspect.signature(form) == inspect.signature(method)
    doc = inspect.getdoc(form)
    if doc != f"Async form of `{name[1:]}`.":
        assert doc == f"{inspect.getdoc(method)}\n\nAsync form of `{name[1:]}`; runs in a thread."


def test_help_describes_every_method_when_asked_for_the_default_manager() -> None:
    text = pydoc.plain(pydoc.render_doc(sessions))
    for owner, name in async_forms(SessionManager):
        assert f" {name}(" in text, (owner, name)
    assert "Sessions in one Django cache" in text


def test_repr_names_the_cache_and_the_idle_time() -> None:
    assert repr(SessionManager("default", ttl_seconds=60)) == "<SessionManager on the cache 'default', idle time 60 s>"
