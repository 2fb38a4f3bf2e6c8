"""LangChain's ChatOpenAI."""

from __future__ import annotations

from typing import Any

from langchain_openai import ChatOpenAI
from turns import API_KEY, BASE_URL, MODEL, Say, serve


def converse(**options: Any) -> Say:
    model = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, **options)
    messages: list[Any] = [("system", "You are terse.")]

    def say(text: str) -> str:
        messages.append(("human", text))
        answer = model.invoke(messages)
        messages.append(answer)
        return answer.text

    return say


serve(
    chat=converse,
    chat_stream=lambda: converse(streaming=True),
    responses=lambda: converse(use_responses_api=True),
    previous_response=lambda: converse(use_responses_api=True, use_previous_response_id=True, store=True),
)
