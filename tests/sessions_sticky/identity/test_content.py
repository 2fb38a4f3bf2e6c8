from __future__ import annotations

import copy
import json

import msgspec
import pytest

from tests.sessions_sticky.identity.requests import ANSWER, BODIES, CHAT, IMAGE, QUESTION, SYSTEM, identity, raw, turn

API_BODIES = pytest.mark.parametrize(("api", "body"), BODIES.items())
LONG = "s" * 1024


def content(body, api="chat", **options):
    """Return the identity by content, which plain and raw bodies share."""
    found = identity({}, body, api=api, **options)
    assert identity({}, raw(body), api=api, **options) == found
    return found


@API_BODIES
def test_content_is_the_same_on_each_turn(api, body):
    turns = {"responses": "input"}.get(api, "messages")
    start = len(body[turns]) - 2
    first, second = content(body | {turns: body[turns][:start]}, api), content(body, api)
    assert first._replace(binds=True) == second
    assert (first.binds, second.binds) == (False, True)
    assert (second.source, second.client_id, second.pins_model) == ("content", None, False)


@API_BODIES
def test_content_differs_by_what_begins_the_conversation(api, body):
    found = {content(body, api).session_id}
    for old, new in ((SYSTEM, "You are a cook."), (QUESTION, "What shall I eat?")):
        found.add(content(json.loads(json.dumps(body).replace(old, new)), api).session_id)
    found.add(content(body | {"prompt_cache_key": "k"}, api).session_id)
    found.add(content(body | {"prompt_cache_key": 5}, api).session_id)
    found.add(content(body, api, owner="globex").session_id)
    found.add(content(body, api, model="gpt-6").session_id)
    found.add(content(body, api, key=b"another").session_id)
    assert len(found) == 8


@API_BODIES
def test_content_ignores_later_turns_and_other_fields(api, body):
    changed = json.loads(json.dumps(body).replace(ANSWER, "To Porto.").replace("And then?", "Why?"))
    assert content(changed | {"temperature": 1, "user": "u", "prompt_cache_key": None}, api) == content(body, api)


@API_BODIES
def test_content_ranks_the_models_of_one_beginning_together(api, body):
    assert content(body, api, model="a").ranking_id == content(body, api, model="b").ranking_id


@pytest.mark.parametrize(
    ("messages", "source"),
    [
        ("[[],[]]", "none"),
        ("[" + "[]," * 1_000_001 + "[]]", "none"),
        ('[{"role":"user","content":[' + "[]," * 1_000_001 + "[]]}]", "none"),
        ('[{"role":"user","content":[[' + "[]," * 20_000 + "[]]]}]", "content"),
        ('[{"role":"user","content":[{"type":"text","text":7}, null, "x"]}]', "content"),
        ('[{"role":"user","content":{"type":"text"}}]', "content"),
    ],
)
def test_content_of_hostile_or_odd_json_is_not_decoded_in_full(messages, source):
    body = {"messages": msgspec.Raw(messages.encode())}
    assert identity({}, body).source == source


def test_content_of_two_large_parts_differs():
    def body(item):
        parts = f'[{{"role":"user","content":[[{item * 20_000}[]]]}}]'
        return {"messages": msgspec.Raw(parts.encode())}

    assert identity({}, body("[],")).session_id != identity({}, body("{},")).session_id


def test_long_value_is_not_decoded_in_search_of_an_id():
    body = {"session_id": msgspec.Raw(b'"%b"' % (b"x" * 70_000)), **raw(CHAT)}
    assert identity({}, body).source == "content"


@pytest.mark.parametrize("api", ["completions", "embeddings", "unknown"])
def test_content_of_other_apis_is_not_recognized(api):
    assert content(CHAT | {"input": "text", "prompt": "text"}, api).source == "none"


def test_chat_reads_text_parts_as_text():
    parts = turn(("system", [{"type": "text", "text": SYSTEM}]), ("user", [{"type": "text", "text": QUESTION}]))
    assert content(parts) == content(turn(("system", SYSTEM), ("user", QUESTION)))
    assert content(turn(("developer", SYSTEM), ("user", [QUESTION]))) == content(parts)


def test_responses_read_text_and_items_alike():
    text = content({"instructions": SYSTEM, "input": QUESTION}, "responses")
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
    assert content({"input": [{"role": "developer", "content": SYSTEM}, item]}, "responses") == text
    assert not text.binds


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "reasoning", "encrypted_content": "x"},
        {"role": "assistant", "content": "x"},
        {"type": "compaction"},
    ],
)
def test_responses_count_an_item_of_the_assistant_as_its_turn(item):
    question = {"role": "user", "content": QUESTION}
    assert content({"input": [question, item, question]}, "responses").binds
    assert not content({"input": [question, question]}, "responses").binds


def test_responses_include_items_before_the_first_user_message():
    question = {"role": "user", "content": QUESTION}
    compacted = [{"type": "compaction", "id": f"c{n}", "encrypted_content": text} for n, text in enumerate("aab")]
    first, again, other = (content({"input": [item, question]}, "responses") for item in compacted)
    assert first == again != other


@pytest.mark.parametrize("field", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}])
def test_responses_with_a_beginning_upstream_have_no_fingerprint(field):
    body = {"input": QUESTION, **field}
    assert content(body, "responses").source == "none"
    assert content(body | dict.fromkeys(field), "responses").source == "content"


def test_content_includes_all_user_messages_before_the_answer():
    one = content(turn(("user", "a")))
    two = content(turn(("user", "a"), ("user", "b")))
    assert two.session_id not in (one.session_id, content(turn(("user", "ab"))).session_id)
    assert content(turn(("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d"))) == two._replace(binds=True)


def test_content_includes_what_precedes_the_first_user_message():
    greeted = content(turn(("assistant", "Hello!"), ("user", "a")))
    assert not greeted.binds
    assert greeted.session_id != content(turn(("user", "a"))).session_id
    assert greeted.session_id != content(turn(("assistant", "Good day!"), ("user", "a"))).session_id


def test_content_ends_at_a_system_message_after_the_user():
    reminded = content(turn(("user", "a"), ("system", "It is noon."), ("assistant", "b"), ("user", "c")))
    assert reminded.binds
    unanswered = content(turn(("user", "a"), ("system", "It is one."), ("user", "z")))
    assert reminded._replace(binds=False) == unanswered


def test_content_counts_a_tool_result_as_an_assistant_turn():
    assert content(turn(("user", "a"), ("tool", "42"))).binds


def test_content_does_not_count_the_start_of_an_answer_as_a_turn():
    prefilled = turn(("user", "a"), ("assistant", "{"))
    assert content(prefilled) == content(turn(("user", "a")))
    assert content(turn(("user", "a"), ("assistant", "b"), ("assistant", "{"))).binds


def test_content_takes_the_beginning_of_the_system_prompt():
    bodies = [turn(("system", LONG + end), ("user", "a")) for end in ("x", "y")]
    assert content(bodies[0]) == content(bodies[1])
    split = turn(("system", LONG[:1000]), ("system", LONG[:24] + "z"), ("user", "a"))
    assert content(split) == content(bodies[0])
    assert content(turn(("system", LONG[:-1] + "x"), ("user", "a"))) != content(bodies[0])


@pytest.mark.parametrize(
    "system",
    [
        [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.100; cch=1;"},
            {"type": "text", "text": SYSTEM},
        ],
        [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.101; cch=2;"},
            {"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}},
        ],
        f"x-anthropic-billing-header: cch=3;\n{SYSTEM}",
        [None, {"type": "image"}, SYSTEM],
        SYSTEM,
    ],
)
def test_messages_leave_out_the_billing_header(system):
    assert content(BODIES["messages"] | {"system": system}, "messages") == content(BODIES["messages"], "messages")


def test_content_leaves_out_decoration_and_the_order_of_keys():
    plain = content(turn(("user", [{"type": "text", "text": "a"}, IMAGE])))
    image = {**dict(reversed(IMAGE.items())), "cache_control": {"type": "ephemeral"}, "id": "p1", "status": None}
    image["image_url"] = dict(reversed(IMAGE["image_url"].items()))
    message = {
        "content": [{"cache_control": {"type": "ephemeral"}, "text": "a", "type": "text"}, image],
        "cache_control": {},
        "role": "user",
        "name": "alice",
    }
    assert content({"messages": [message]}) == plain


def test_content_includes_images():
    other = copy.deepcopy(IMAGE)
    other["image_url"]["url"] += "x"
    found = [content(turn(("user", [{"type": "text", "text": "a"}, *parts]))) for parts in ([], [IMAGE], [other])]
    assert len({each.session_id for each in found}) == 3


def test_content_keeps_the_borders_of_messages_and_parts():
    bodies = [
        turn(("user", ["ab"])),
        turn(("user", ["a", "b"])),
        turn(("user", "a"), ("user", "b")),
        turn(("system", "a"), ("user", "b")),
        turn(("assistant", "a"), ("user", "b")),
        turn(("user", "b"), prompt_cache_key="a"),
        turn(("user", [{"type": "text", "text": 1}])),
        turn(("user", {"type": "other"})),
        turn(("user", None)),
        turn(("user", "")),
    ]
    assert len({content(body).session_id for body in bodies}) == len(bodies)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": "text"},
        {"messages": {}},
        {"messages": []},
        {"messages": ["text"]},
        {"messages": [{"content": "a"}]},
        {"messages": [{"role": 5, "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}, None]},
        {"messages": [{"role": "user", "content": "a"}, {"role": ["assistant"]}]},
        turn(("system", SYSTEM)),
        turn(("system", SYSTEM), ("assistant", "Hello!")),
    ],
)
def test_content_without_a_user_message_or_of_another_shape_has_no_fingerprint(body):
    assert content(body).source == "none"


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("chat", {"messages": msgspec.Raw(b'[{"role":"user","content":"\xff"}]')}),
        ("chat", {"messages": msgspec.Raw(b'[{"role":"user"')}),
        ("chat", {"messages": msgspec.Raw(b'[{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}]")}),
        ("chat", turn(("user", [{"type": "file", "name": "\ud800"}]))),
        ("messages", BODIES["messages"] | {"system": msgspec.Raw(b'"\xff"')}),
        ("responses", {"input": 5}),
        ("responses", {"input": msgspec.Raw(b"5")}),
    ],
)
def test_content_that_does_not_decode_has_no_fingerprint(api, body):
    assert identity({}, body, api=api).source == "none"


def test_content_ignores_a_cache_key_that_does_not_decode():
    assert identity({}, {**CHAT, "prompt_cache_key": msgspec.Raw(b'"\xff"')}) == identity({}, CHAT)


def test_content_reads_no_message_after_the_answer():
    messages = raw(CHAT)["messages"]
    end = bytes(messages)[:-1] + b',{"role":"user","content":"\xff"}]'
    assert identity({}, {"messages": msgspec.Raw(end)}) == identity({}, CHAT)
