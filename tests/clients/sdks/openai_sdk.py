"""The OpenAI SDK: chat completions, and Responses with each way to continue one."""

from __future__ import annotations

import time
from typing import Any

import openai
from turns import API_KEY, BASE_URL, MODEL, Say, serve

client = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY)


def chat() -> Say:
    messages: list[Any] = [{"role": "system", "content": "You are terse."}]

    def say(text: str) -> str:
        messages.append({"role": "user", "content": text})
        answer = client.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content
        messages.append({"role": "assistant", "content": answer})
        return answer

    return say


def chat_stream() -> Say:
    messages: list[Any] = []

    def say(text: str) -> str:
        messages.append({"role": "user", "content": text})
        with client.chat.completions.stream(model=MODEL, messages=messages) as stream:
            answer = stream.get_final_completion().choices[0].message.content
        messages.append({"role": "assistant", "content": answer})
        return answer or ""

    return say


def previous_response() -> Say:
    previous: Any = openai.omit

    def say(text: str) -> str:
        nonlocal previous
        response = client.responses.create(model=MODEL, input=text, previous_response_id=previous)
        previous = response.id
        assert client.responses.retrieve(response.id).output_text == response.output_text
        return response.output_text

    return say


def encrypted_stream() -> Say:
    """Keep the history, with reasoning that only the account that made it can read."""
    items: list[Any] = []

    def say(text: str) -> str:
        items.append({"role": "user", "content": text})
        included: Any = ["reasoning.encrypted_content"]
        with client.responses.stream(
            model=MODEL, input=items, store=False, include=included, instructions="Be terse."
        ) as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            response = stream.get_final_response()
        assert "".join(deltas) == response.output_text
        items.extend(item.model_dump(exclude_none=True) for item in response.output)
        return response.output_text

    return say


def conversation() -> Say:
    conversation_id = ""

    def say(text: str) -> str:
        nonlocal conversation_id
        conversation_id = conversation_id or client.conversations.create(metadata={"topic": "test"}).id
        return client.responses.create(model=MODEL, input=text, conversation=conversation_id).output_text

    return say


def background() -> Say:
    previous: Any = openai.omit

    def say(text: str) -> str:
        nonlocal previous
        response = client.responses.create(model=MODEL, input=text, previous_response_id=previous, background=True)
        assert response.status == "queued"
        while response.status in ("queued", "in_progress"):
            time.sleep(0.1)
            response = client.responses.retrieve(response.id)
        previous = response.id
        return response.output_text

    return say


serve(
    chat=chat,
    chat_stream=chat_stream,
    previous_response=previous_response,
    encrypted_stream=encrypted_stream,
    conversation=conversation,
    background=background,
)
