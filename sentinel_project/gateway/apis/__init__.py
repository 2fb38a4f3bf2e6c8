"""The APIs that the gateway serves, one module each; adding one is one file and a line here."""

from __future__ import annotations

from sentinel_project.gateway.apis.base import Api
from sentinel_project.gateway.apis.chat import CHAT
from sentinel_project.gateway.errors import Render, openai_shape

APIS: tuple[Api, ...] = (CHAT,)


def error_shape(path: str) -> Render:
    """Return how errors below a path of the gateway are rendered: in the API's shape, elsewhere in OpenAI's."""
    return next((api.render_error for api in APIS if path.startswith(f"/v1{api.path}")), openai_shape)
