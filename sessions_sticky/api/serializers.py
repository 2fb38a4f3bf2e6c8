"""What the API reads and writes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.core.validators import RegexValidator
from rest_framework import serializers

from sessions_sticky import keys
from sessions_sticky.api.paths import session_path
from sessions_sticky.exceptions import InvalidConversationId
from sessions_sticky.session import Entry

MAX_LENGTH = 256
"""Of names and owners, in characters; the wire format itself knows no limit."""

not_blank = RegexValidator(r"\S", "This field may not be blank.", code="blank")
no_control_characters = RegexValidator(
    r"[\x00-\x1f\x7f-\x9f]", "Control characters are not allowed.", code="control_characters", inverse_match=True
)
TEXT = (not_blank, no_control_characters)


def valid_conversation_id(value: str) -> None:
    """Raise a field error unless the manager accepts the id."""
    try:
        keys.check(value)
    except InvalidConversationId as exc:
        raise serializers.ValidationError(str(exc), code="invalid") from exc


class TextField(serializers.CharField):
    """A JSON string, taken as it is: nothing trimmed, no number read as its digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the string as it came."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class SessionSerializer(serializers.Serializer[Any]):
    """A session; written from an `Entry`, read as the arguments of `resolve`."""

    id = TextField(
        validators=[valid_conversation_id],
        help_text=f"Conversation id: 1 to {keys.MAX_CONVERSATION_ID_LENGTH} characters, no control characters.",
    )
    provider = TextField(max_length=MAX_LENGTH, validators=TEXT, help_text="Provider that serves the conversation.")
    model = TextField(max_length=MAX_LENGTH, validators=TEXT, help_text="Model that serves the conversation.")
    external_id = TextField(
        max_length=MAX_LENGTH,
        allow_blank=True,
        validators=[no_control_characters],
        help_text="Owner of the conversation; may be blank.",
    )
    created_at = serializers.IntegerField(read_only=True, help_text="When it was bound, in Unix seconds.")
    expires_in = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="Idle time left in seconds, rounded up; null where the cache cannot tell.",
    )
    expires_at = serializers.DateTimeField(
        read_only=True,
        allow_null=True,
        format="iso-8601",
        default_timezone=UTC,
        help_text="When it expires unless it is used before, in UTC; null where the cache cannot tell.",
    )
    url = serializers.CharField(read_only=True, help_text="Path of this session; ready for use, whatever the id.")

    def to_representation(self, instance: Entry) -> dict[str, Any]:
        """Return the session's fields, its expiry and its path."""
        session = msgspec.structs.asdict(instance.session)
        expiry = {"expires_in": instance.expires_in, "expires_at": _expires_at(instance.expires_in)}
        return super().to_representation({**session, **expiry, "url": session_path(session["id"])})


class RebindSerializer(serializers.Serializer[Any]):
    """Where to move a conversation."""

    provider = TextField(max_length=MAX_LENGTH, validators=TEXT, help_text="Provider to move to.")
    model = TextField(max_length=MAX_LENGTH, validators=TEXT, help_text="Model to move to.")
    reason = TextField(max_length=500, validators=TEXT, help_text="Why; kept for operators.")
    from_provider = TextField(
        required=False,
        allow_blank=True,
        help_text="Provider that it must still be on, otherwise nothing moves; left out: any.",
    )


def _expires_at(expires_in: int | None) -> datetime | None:
    if expires_in is None:
        return None
    try:
        return datetime.fromtimestamp(int(time.time()) + expires_in, UTC)
    except (ValueError, OverflowError):
        return None  # another program set an expiry beyond the calendar
