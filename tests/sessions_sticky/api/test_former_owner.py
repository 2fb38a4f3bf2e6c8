"""The owner's name in 0.1, `external_id`, is accepted by every route that takes an owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import sessions
from tests.sessions_sticky.api.calls import BASE, PROPOSAL

if TYPE_CHECKING:
    from rest_framework.test import APIClient

BOTH = ["A former name of owner; pass only owner."]


@pytest.fixture(autouse=True)
def bound(session_cache: Any) -> None:
    for number, owner in enumerate(["ann", "ann", "bob"]):
        sessions.create(f"conv-{number}", "openai", "gpt-4", owner)


def test_create_accepts_the_former_name(api: APIClient) -> None:
    former = {**{name: value for name, value in PROPOSAL.items() if name != "owner"}, "external_id": "user-7"}
    answer = api.post(BASE, {**former, "id": "new"}, format="json")
    assert (answer.status_code, answer.json()["owner"], answer.json()["external_id"]) == (201, "user-7", "user-7")
    assert api.post(BASE, {**PROPOSAL, **former, "id": "newer"}, format="json").status_code == 201
    refused = api.post(BASE, {**former, "id": "newest", "owner": "eve"}, format="json")
    assert (refused.status_code, refused.json()["errors"]) == (400, {"external_id": BOTH})
    missing = api.post(BASE, {"id": "x", "provider": "p", "model": "m"}, format="json")
    assert missing.json()["errors"] == {"owner": ["This field is required."]}


@pytest.mark.parametrize("name", ["owner", "external_id"])
def test_filters_accept_the_former_name(api: APIClient, name: str) -> None:
    assert api.get(BASE, {name: "ann"}).json()["count"] == 2
    for path, move in (("delete/", {}), ("rebind/", {"to_provider": "mistral", "reason": "r"})):
        answer = api.post(f"{BASE}{path}", {name: "ann", "dry_run": True, **move}, format="json")
        assert answer.json() == {"count": 2}
    done = api.post(f"{BASE}delete/", {name: "ann"}, format="json").json()
    assert (done["owner"], done["external_id"], done["done"]) == ("ann", "ann", 2)


def test_filters_refuse_both_names_with_different_values(api: APIClient) -> None:
    both = {"owner": "ann", "external_id": "bob"}
    for answer in (api.get(BASE, both), api.post(f"{BASE}delete/", both, format="json")):
        assert (answer.status_code, answer.json()["errors"]) == (400, {"external_id": BOTH})
    assert sessions.all().count() == 3
