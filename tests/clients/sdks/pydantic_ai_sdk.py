"""pydantic-ai over each API."""

from __future__ import annotations

from typing import Any

from anthropic import AsyncAnthropic
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from turns import API_KEY, BASE_URL, MODEL, ROOT, Say, serve


def converse(model: Any) -> Say:
    agent = Agent(model, instructions="Be terse.")
    history: Any = None

    def say(text: str) -> str:
        nonlocal history
        result = agent.run_sync(text, message_history=history)
        history = result.all_messages()
        return result.output

    return say


def openai() -> OpenAIProvider:
    return OpenAIProvider(base_url=BASE_URL, api_key=API_KEY)


def anthropic() -> AnthropicProvider:
    return AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=ROOT, api_key=API_KEY))


serve(
    chat=lambda: converse(OpenAIChatModel(MODEL, provider=openai())),
    responses=lambda: converse(OpenAIResponsesModel(MODEL, provider=openai())),
    messages=lambda: converse(AnthropicModel(MODEL, provider=anthropic())),
)
