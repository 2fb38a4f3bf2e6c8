"""Parse request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from rest_framework.exceptions import APIException
from rest_framework.parsers import JSONParser

MAX_BODY_BYTES = 64 * 1024
"""Maximum body size, ten times the longest valid one; megabytes would take seconds to decode."""


class TooLarge(APIException):
    """413."""

    status_code = 413
    default_detail = f"The body is larger than {MAX_BODY_BYTES} bytes."


class ShortJSONParser(JSONParser):
    """JSON of at most `MAX_BODY_BYTES`. Raises `TooLarge` before anything is decoded."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the decoded body."""
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge
        return super().parse(BytesIO(body), media_type, parser_context)
