"""The Anthropic SDK: plain, streamed, and with thinking that is sent back."""

from __future__ import annotations

from typing import Any

import anthropic
from turns import API_KEY, MODEL, ROOT, Say, serve

client = anthropic.Anthropic(base_url=ROOT, api_key=API_KEY)


def plain() -> Say:
    messages: list[Any] = []

    def say(text: str) -> str:
        messages.append({"role": "user", "content": text})
        answer = client.messages.create(model=MODEL, messages=messages, max_tokens=100, system="You are terse.")
        assert client.messages.count_tokens(model=MODEL, messages=messages).input_tokens > 0
        assert MODEL in [model.id for model in client.models.list()]
        messages.append({"role": "assistant", "content": answer.content})
        return answer.content[-1].text

    return say


def thinking_stream() -> Say:
    messages: list[Any] = []

    def say(text: str) -> str:
        messages.append({"role": "user", "content": text})
        thinking: Any = {"type": "enabled", "budget_tokens": 1024}
        with client.messages.stream(model=MODEL, messages=messages, max_tokens=2000, thinking=thinking) as stream:
            streamed = "".join(stream.text_stream)
            answer = stream.get_final_message()
        assert [block.type for block in answer.content] == ["thinking", "text"]
        messages.append({"role": "assistant", "content": answer.content})
        return streamed

    return say


serve(plain=plain, thinking_stream=thinking_stream)
