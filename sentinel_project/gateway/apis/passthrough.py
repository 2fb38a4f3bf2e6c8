"""OpenAI's embeddings and its completions without roles: passed through, with failover."""

from __future__ import annotations

from sentinel_project.gateway.apis.base import Api, Stage, require_input
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.chat import ChatCompletions


class Completions(ChatCompletions):
    """`POST /v1/completions`; its streams are those of chat completions, with a `text` in place of a delta."""

    name = "completions"
    path = "/completions"
    takes_hint = False

    def check(self, body: Body) -> None:
        """Require a prompt."""
        require_input(body, "prompt")


class Embeddings(Api):
    """`POST /v1/embeddings`."""

    name = "embeddings"
    path = "/embeddings"
    answer_field = "data"
    streams = False
    takes_hint = False

    def check(self, body: Body) -> None:
        """Require an input."""
        require_input(body, "input")

    def stage(self, event: bytes) -> Stage:
        """Return CONTENT: there are no streams."""
        return Stage.CONTENT


COMPLETIONS = Completions()
EMBEDDINGS = Embeddings()
