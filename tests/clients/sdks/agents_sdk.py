"""The OpenAI Agents SDK, which keeps the history itself or leaves it to the API."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from turns import API_KEY, BASE_URL, MODEL, Say, serve

set_tracing_disabled(True)
client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY)
loop = asyncio.new_event_loop()


def converse(kind: Any, session: Any) -> Say:
    agent = Agent(name="terse", instructions="Be terse.", model=kind(model=MODEL, openai_client=client))

    def say(text: str) -> str:
        return str(loop.run_until_complete(Runner.run(agent, text, session=session)).final_output)

    return say


def chain() -> Say:
    agent = Agent(name="terse", model=OpenAIResponsesModel(model=MODEL, openai_client=client))
    previous: str | None = None

    def say(text: str) -> str:
        nonlocal previous
        result = loop.run_until_complete(Runner.run(agent, text, previous_response_id=previous))
        previous = result.last_response_id
        return str(result.final_output)

    return say


serve(
    chat=lambda: converse(OpenAIChatCompletionsModel, SQLiteSession("chat")),
    responses=lambda: converse(OpenAIResponsesModel, SQLiteSession("responses")),
    conversation=lambda: converse(OpenAIResponsesModel, OpenAIConversationsSession(openai_client=client)),
    previous_response=chain,
)
