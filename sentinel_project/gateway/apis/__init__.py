"""The APIs that the gateway serves, and what they share. CONTRIBUTING.md lists the steps for adding one."""

from __future__ import annotations

from collections.abc import Mapping

from sentinel_project.gateway.apis.base import Api
from sentinel_project.gateway.apis.chat import CHAT
from sentinel_project.gateway.apis.messages import COUNT_TOKENS, MESSAGES
from sentinel_project.gateway.apis.passthrough import COMPLETIONS, EMBEDDINGS
from sentinel_project.gateway.apis.responses import COMPACT, INPUT_TOKENS, RESPONSES
from sentinel_project.gateway.errors import Render, openai_shape

APIS: tuple[Api, ...] = (CHAT, MESSAGES, COUNT_TOKENS, RESPONSES, COMPACT, INPUT_TOKENS, COMPLETIONS, EMBEDDINGS)


def error_shape(path: str, headers: Mapping[str, str]) -> Render:
    """Return how the errors of a path are rendered: in the shape of the API that it is below, else of the client.

    `headers` have lower-case names.
    """
    default = MESSAGES.render_error if is_anthropic(headers) else openai_shape
    return next((api.render_error for api in APIS if path.startswith(api.route)), default)


def is_anthropic(headers: Mapping[str, str]) -> bool:
    """Return whether a client uses Anthropic's APIs, by the header that all its SDKs send."""
    return "anthropic-version" in headers
