"""Golden values: processes and versions that share a Redis must make the same ids."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from tests.sessions_sticky.identity.requests import BODIES, IMAGE, KEY, SYSTEM, identity, turn

CONTENT = "f3bfbf0c2e55:content:db48ac0d1f9611514ea048cdeaa7fbe5"


@pytest.mark.parametrize(
    ("headers", "body", "name"),
    [
        ({"x-session-id": "ses_1"}, {}, "f3bfbf0c2e55:ses_1"),
        ({"x-session-id": "é@b:c"}, {}, "f3bfbf0c2e55:é@b:c"),
        ({"x-claude-code-session-id": "s", "x-claude-code-agent-id": "a"}, {}, "f3bfbf0c2e55:s:a"),
        (
            {"x-session-id": "x" * 300},
            {},
            "f3bfbf0c2e55:0d4e2ca9e9cbced7a7a5380eb29e1a3783b9b6d0db72de36a1051038e1c1fbc7",
        ),
        (
            {"x-chat-id": "a\nb"},
            {},
            "f3bfbf0c2e55:7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78",
        ),
        ({}, {"session_id": 12}, "f3bfbf0c2e55:12"),
        (
            {},
            turn(("user", [{"type": "text", "text": "é"}, IMAGE]), prompt_cache_key="k"),
            "f3bfbf0c2e55:content:fa530b166456b25ed6b4a2efed78add1",
        ),
    ],
)
def test_identify_makes_the_same_ids_as_ever(headers, body, name):
    found = identity(headers, body)
    assert (found.session_id, found.ranking_id) == (f"{name}@gpt-5", name)


@pytest.mark.parametrize("api", BODIES)
def test_identify_makes_one_id_by_content_for_all_apis(api):
    found = identity({}, BODIES[api], api=api)
    assert (found.session_id, found.ranking_id) == (f"{CONTENT}@gpt-5", CONTENT)


def test_identify_hashes_a_long_model_as_ever():
    assert identity({"x-session-id": "ses_1"}, model="m" * 300).session_id == (
        "f3bfbf0c2e55:46bf2fa87b4820eabd28fa94f4fa05e629c2c41e5a37f59ce44f6882c3447c36"
        "@88c6e4c1d93376019f71bdb9b6927a58beae8f667295ea67a4dfa01aff0ee558"
    )


@pytest.mark.parametrize(
    ("conversation_id", "session_id"),
    [
        ("c", "822b33ad87c148a0a20a5ba7cd5ebcaa:c"),
        (
            "c" * 256,
            "822b33ad87c148a0a20a5ba7cd5ebcaa:1eda457d1cff3703814cb94ab483bc915bc6c1ee0bcf177c2a4e5617a3621392",
        ),
    ],
)
def test_identify_scopes_named_ids_as_version_0_1_did(conversation_id, session_id):
    assert identity({}, {"conversation_id": conversation_id}, scope="owner").session_id == session_id


def test_identify_makes_the_fingerprint_that_the_page_describes():
    image = hashlib.sha256(json.dumps(IMAGE, sort_keys=True, separators=(",", ":")).encode()).digest()
    fields = {
        "owner": b"acme",
        "cache_key": b"k",
        "system": SYSTEM.encode(),
        "role": b"user",
        "text": "é".encode(),
        "part": image,
    }
    message = b"".join(f"{name} {len(value)}:".encode() + value for name, value in fields.items())
    digest = hmac.new(KEY, b"content\0" + message, "sha256").hexdigest()[:32]
    digits = hmac.new(KEY, b"owner\0acme", "sha256").hexdigest()[:12]
    user = ("user", [{"type": "text", "text": "é"}, IMAGE | {"cache_control": {"type": "ephemeral"}}])
    found = identity({}, turn(("system", SYSTEM), user, prompt_cache_key="k"))
    assert found.session_id == f"{digits}:content:{digest}@gpt-5"
