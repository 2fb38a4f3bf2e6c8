"""The page about identity says what the code does."""

from __future__ import annotations

import re

import pytest

from sessions_sticky.identity import Identity, apis, content, sources
from sessions_sticky.identity.clients import CLIENTS
from sessions_sticky.identity.content import SYSTEM_CHARACTERS
from sessions_sticky.identity.sources import CONTENT, DEFAULT_NAMED, DEFAULT_SOURCES
from tests.docs.blocks import DOCS
from tests.sessions_sticky.identity.requests import CHAT, identity

PAGE = (DOCS / "reference/identity.md").read_text()


def section(heading: str) -> str:
    """Return the text below a heading."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_page_has_the_order_of_the_sources() -> None:
    listed = section("The order").partition("\n1. Named: ")[2].partition("\n\n")[0]
    named, observed = listed.split("\n2. ")
    assert re.findall("`(.+?)`", named) == list(DEFAULT_NAMED)
    assert re.findall("`(.+?)`", observed) == list(DEFAULT_SOURCES)


def client_rows() -> list[tuple[str, ...]]:
    """Return name and sources in each row of the table, all of which have evidence, versions and remarks."""
    lines = [line for line in section("What clients send").splitlines() if line.startswith("| [")]
    rows = [re.fullmatch(r"\| \[(.+)\]\(https://\S+\) \| (`.+`) \| [^|]* \| [^|]* \|", line) for line in lines]
    return [row.groups() for row in rows if row] if all(rows) else []


def test_page_has_the_table_of_the_clients() -> None:
    expected = [(name, ", ".join(f"`{source}`" for source in sources)) for name, sources in CLIENTS.items()]
    listed = client_rows()
    assert listed[: len(expected)] == expected
    assert {sources for _, sources in listed[len(expected) :]} == {f"`{CONTENT}`"}


def test_page_names_the_senders_of_each_source() -> None:
    sent = {source for _, sources in client_rows() for source in re.findall("`(.+?)`", sources)}
    text = section("What clients send").rpartition("\n| ")[2]
    others = set(re.findall(r"`((?:body|header)\.[^`]+)`", text.partition("\n")[2]))
    assert sent | others == {*DEFAULT_NAMED, *DEFAULT_SOURCES}
    assert not sent & others


@pytest.mark.parametrize("client", CLIENTS)
def test_identify_recognizes_each_client_by_each_of_its_sources(client: str) -> None:
    for source in CLIENTS[client]:
        place, _, path = source.replace("*", "dynamo").partition(".")
        value = "user_a_session_1" if path == "metadata.user_id" else "1"
        body = value
        for name in reversed(path.split(".")):
            body = {name: body}
        headers, body = ({path: value}, {}) if place == "header" else ({}, body)
        found = identity(headers, body)
        assert found.source == source.replace("*", "dynamo")
        assert found.client_id == "1"


def test_identify_recognizes_clients_without_an_id_by_content() -> None:
    found = identity({}, CHAT)
    assert (found.source, found.client_id) == (CONTENT, None)


def test_page_names_every_field_of_an_identity() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", section("`identify`"), re.MULTILINE)) == Identity._fields


def test_page_has_the_limits() -> None:
    assert f"the first {SYSTEM_CHARACTERS:,} characters of the system prompt" in section("Content")
    assert f"more than {sources._MAX_ID_BYTES // 1024} KiB as an id" in section("Content")
    assert apis._MAX_COMMAS == 1_000_000
    assert f"more than {content._MAX_CONTAINERS:,} objects and lists" in (DOCS / "interchange.md").read_text()
