from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import pytest
from django.utils.html import escape as django_escape

from sessions_sticky import sessions
from tests.sessions_sticky.admin.pages import BASE, PROPOSED, TARGET, binding, listed, page_of, query
from tests.sessions_sticky.api.calls import HOSTILE_IDS

if TYPE_CHECKING:
    import redis
    from django.test import Client

RTL = "\u202eright to left\u202c مرحبا"
IDS = [*HOSTILE_IDS, "change", "search", "move", "add", "_", "_2F", "_2E", "_2E_2E", "a_2Fb", "__", RTL, "</script>"]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 }}",
    "%s %(id)s %",
    "a/b?c#d&e=f",
    RTL,
    "😀" * 256,
]


@pytest.mark.parametrize("conversation_id", IDS)
@pytest.mark.slow
def test_pages_work_when_the_id_is_hostile(ada: Client, session_cache: redis.Redis, conversation_id: str) -> None:
    session = sessions.create(conversation_id, **PROPOSED)
    link = re.search(r'class="sticky-id"><a href="([^"]*)"', ada.get(BASE).text)
    assert link
    url = urlsplit(urljoin(f"http://testserver{BASE}", unescape(link[1]))).path  # as a browser resolves it
    response = ada.get(url)
    assert response.status_code == 200
    assert response.context["shown"].session == session
    assert f"<bdi>{django_escape(conversation_id)}</bdi>".strip() in response.text.replace(' class="sticky-id"', "")
    for path in re.findall(
        r'(?:action|href)="(/admin/sessions_sticky/session/[^"]+/(?:touch|history)/)"', response.text
    ):
        assert urljoin(f"http://testserver{url}", unescape(path)) == f"http://testserver{unescape(path)}"
    assert ada.post(page_of(conversation_id, "touch")).url == url
    assert ada.get(page_of(conversation_id, "history")).status_code == 200
    assert ada.get(f"{BASE}search/", {"q": conversation_id}).url == url
    moved = ada.post(f"{BASE}move/", {"selected": binding(session), "on_detail": "1", **TARGET})
    assert (moved.status_code, moved.url) == (302, url)
    shown = binding(sessions.get(conversation_id))
    ada.post(f"{BASE}delete/", {"selected": shown, "confirmed": "1"})
    assert sessions.get(conversation_id) is None


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_pages_show_text_when_a_value_is_hostile(ada: Client, session_cache: redis.Redis, text: str) -> None:
    session = sessions.create(text, text, text, text)
    sessions.acting_as(text).rebind(session, provider=text, model=f"{text}2", reason=text)
    current = binding(sessions.get(text))
    answers = [
        ada.get(BASE),
        ada.get(page_of(text)),
        ada.get(page_of(text, "history")),
        ada.get(query(provider=text, owner=text)),
        ada.get(f"{BASE}search/", {"q": f"{text[:200]}!"}, follow=True),
        ada.post(f"{BASE}delete/", {"selected": current}),
        ada.post(f"{BASE}move/", {"selected": current}),
        ada.post(f"{BASE}move/", {"all": "1", "owner": text, "to-provider": text, "to-reason": text[:100]}),
        ada.post(f"{BASE}delete/", {"selected": binding(session), "confirmed": "1"}, follow=True),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert django_escape(text[:60]) in answer.text
        for dangerous in ("<script>alert", "<img src=x"):
            assert dangerous not in answer.text


def test_list_links_to_the_owners_sessions_when_the_owner_is_hostile(ada: Client, session_cache: redis.Redis) -> None:
    for number, owner in enumerate([*HOSTILE, "", " ", "+", "a b"]):
        sessions.create(f"conv-{number}", "openai", "gpt-4", owner)
    links = {row.session.id: row.owner_query for row in ada.get(BASE).context["rows"]}
    for conversation_id, link in links.items():
        assert listed(ada.get(f"{BASE}{link}")) == [conversation_id]
