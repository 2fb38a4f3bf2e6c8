"""The page about identity says what the code does."""

from __future__ import annotations

import re

import pytest

from sessions_sticky.identity import Identity, content, sources
from sessions_sticky.identity.clients import CLIENTS, Client
from sessions_sticky.identity.content import SYSTEM_CHARACTERS
from sessions_sticky.identity.sources import CONTENT, DEFAULT_NAMED, DEFAULT_SOURCES
from tests.docs.blocks import DOCS
from tests.sessions_sticky.identity.requests import CHAT, identity

PAGE = (DOCS / "reference/identity.md").read_text()


def section(heading: str) -> str:
    """Return the text below a heading."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_page_has_the_order_of_the_sources() -> None:
    listed = re.findall(r"^1\. `(.+?)`(.*)$", section("The order"), re.MULTILINE)
    assert [source for source, kind in listed if kind == " (named)"] == list(DEFAULT_NAMED)
    assert [source for source, kind in listed if not kind] == list(DEFAULT_SOURCES)


def test_page_has_the_table_of_the_clients() -> None:
    rows = [line for line in section("What clients send").splitlines() if line.startswith("| [")]
    expected = [
        f"| [{client.name}]({client.evidence}) | {', '.join(f'`{source}`' for source in client.sources)}"
        f" | {client.since} | {client.note} |"
        for client in CLIENTS
    ]
    assert rows == expected


def test_page_names_the_senders_of_each_source() -> None:
    sent = {source for client in CLIENTS for source in client.sources}
    text = section("What clients send").rpartition("\n| ")[2]
    others = set(re.findall(r"`((?:body|header)\.[^`]+)`", text.partition("\n")[2]))
    assert sent | others == {*DEFAULT_NAMED, *DEFAULT_SOURCES}
    assert not sent & others


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_identify_recognizes_each_client_by_each_of_its_sources(client: Client) -> None:
    for source in client.sources:
        place, _, path = source.replace("*", "dynamo").partition(".")
        value = "user_a_session_1" if path == "metadata.user_id" else "1"
        body = value
        for name in reversed(path.split(".")):
            body = {name: body}
        headers, body = ({path: value}, {}) if place == "header" else ({}, CHAT if source == CONTENT else body)
        found = identity(headers, body)
        assert found.source == source.replace("*", "dynamo")
        assert found.client_id == (None if source == CONTENT else "1")


def test_page_names_every_field_of_an_identity() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", section("`identify`"), re.MULTILINE)) == Identity._fields


def test_page_has_the_limits() -> None:
    assert f"the first {SYSTEM_CHARACTERS:,} characters of the system prompt" in section("Content")
    assert f"more than {sources._MAX_ID_BYTES // 1024} KiB as an id" in section("Content")
    assert content._MAX_COMMAS == 1_000_000
    assert f"more than {content._MAX_CONTAINERS:,} objects and lists" in (DOCS / "interchange.md").read_text()
