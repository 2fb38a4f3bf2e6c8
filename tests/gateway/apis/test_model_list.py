"""The list of models, as clients of OpenAI and of Anthropic read it."""

from __future__ import annotations

import pytest

from sentinel_project.gateway.providers.config import Provider
from tests.gateway.asgi import Call, ask

VERSION = ("anthropic-version", "2023-06-01")


@pytest.fixture(autouse=True)
def providers(gateway):
    """Two providers; what only one of them serves cannot be used with Messages."""
    one = Provider(name="one", base_url=None, api_key=None, weight=1, models=("b", "org/c:free"), apis=("messages",))
    two = Provider(name="two", base_url=None, api_key=None, weight=1, models=("a", "b"), apis=("chat",))
    three = Provider(name="three", base_url=None, api_key=None, weight=1, models=("d",), apis=("messages", "chat"))
    gateway.SENTINEL_PROVIDERS = (one, two, three)


async def get(path: str = "/v1/models", *, query: str = "", headers=(VERSION,)) -> Call:
    return await ask(path=path, method="GET", headers=headers, query=query)


def ids(answer: Call) -> list[str]:
    assert answer.status == 200
    return [model["id"] for model in answer.json["data"]]


async def test_models_have_anthropics_shape_when_its_client_asks():
    answer = await get()
    assert answer.json.keys() == {"data", "has_more", "first_id", "last_id"}
    assert answer.json["data"][1] == {
        "type": "model",
        "id": "d",
        "display_name": "d",
        "created_at": "1970-01-01T00:00:00Z",
    }


async def test_models_are_those_that_the_client_can_use():
    assert ids(await get()) == ["b", "d", "org/c:free"]
    assert ids(await get(headers=())) == ["a", "b", "d", "org/c:free"]


@pytest.mark.parametrize(
    ("query", "expected", "has_more"),
    [
        ("limit=1000", ["b", "d", "org/c:free"], False),
        ("limit=3", ["b", "d", "org/c:free"], False),
        ("limit=2", ["b", "d"], True),
        ("limit=1&after_id=b", ["d"], True),
        ("after_id=d", ["org/c:free"], False),
        ("after_id=c", ["d", "org/c:free"], False),
        ("after_id=z", [], False),
        ("limit=1&before_id=org/c:free", ["d"], True),
        ("limit=2&before_id=org/c:free", ["b", "d"], False),
        ("before_id=b", [], False),
    ],
)
async def test_models_are_paged_as_anthropics(query, expected, has_more):
    answer = await get(query=query)
    assert ids(answer) == expected
    assert answer.json["has_more"] is has_more
    assert answer.json["first_id"] == (expected[0] if expected else None)
    assert answer.json["last_id"] == (expected[-1] if expected else None)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "²", 5000 * "1"])
async def test_models_refuse_a_limit_that_is_not_allowed(limit):
    answer = await get(query=f"limit={limit}")
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
    assert "limit must be a number from 1 to 1000" in answer.json["error"]["message"]


async def test_model_has_anthropics_shape_when_its_client_asks():
    answer = await get("/v1/models/org/c:free")
    assert (answer.json["type"], answer.json["id"]) == ("model", "org/c:free")


@pytest.mark.parametrize("name", ["a", "z"])
async def test_model_is_not_found_when_the_client_cannot_use_it(name):
    answer = await get(f"/v1/models/{name}")
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")
    assert (await get("/v1/models/a", headers=())).json["object"] == "model"


async def test_models_need_a_key_in_the_shape_of_the_client():
    answer = await ask(path="/v1/models", method="GET", headers=[VERSION], key=None)
    assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")
