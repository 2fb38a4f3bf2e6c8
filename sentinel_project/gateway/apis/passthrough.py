"""OpenAI's embeddings and its completions without roles: passed through, with failover."""

from __future__ import annotations

from sentinel_project.gateway.apis.base import Api, Stage, invalid_field
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.chat import ChatCompletions


class Completions(ChatCompletions):
    """`POST /v1/completions`; its streams are those of chat completions, with a `text` in place of a delta."""

    name = "completions"
    path = "/completions"
    takes_hint = False

    def check(self, body: Body) -> None:
        """Require a prompt."""
        if bytes(body.fields.get("prompt", b"null")) == b"null":
            raise invalid_field("prompt", None, "text, tokens, or a list of them")


class Embeddings(Api):
    """`POST /v1/embeddings`."""

    name = "embeddings"
    path = "/embeddings"
    answer_field = "data"
    streams = False
    takes_hint = False

    def check(self, body: Body) -> None:
        """Require an input."""
        if bytes(body.fields.get("input", b"null")) == b"null":
            raise invalid_field("input", None, "text, tokens, or a list of them")

    def stage(self, event: bytes) -> Stage:
        """Return CONTENT: there are no streams."""
        return Stage.CONTENT


COMPLETIONS = Completions()
EMBEDDINGS = Embeddings()
