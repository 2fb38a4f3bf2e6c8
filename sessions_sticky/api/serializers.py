"""Serializers of the API."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from sessions_sticky import keys
from sessions_sticky.api.url_ids import session_path, sessions_path
from sessions_sticky.conf import check_target
from sessions_sticky.exceptions import InvalidConversationId, UnknownProvider
from sessions_sticky.queries.filters import MAX_NAME_LENGTH, MAX_REASON_LENGTH
from sessions_sticky.queries.times import format_any, format_datetime
from sessions_sticky.session import Entry
from sessions_sticky.stores.history import Kind

not_blank = RegexValidator(r"\S", "This field may not be blank.", code="blank")
no_control_characters = RegexValidator(
    r"\A[^\x00-\x1f\x7f-\x9f]*\Z", "Control characters are not allowed.", code="control_characters"
)
TEXT = (no_control_characters, not_blank)


class Serializer(serializers.Serializer[Any]):
    """A serializer whose component in the OpenAPI document has a name that no component of the project has."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        extend_schema_serializer(component_name=f"StickySession{cls.__name__.removesuffix('Serializer')}")(cls)


def valid_conversation_id(value: str) -> None:
    """Raise a field error for an invalid conversation id."""
    try:
        keys.check(value)
    except InvalidConversationId as exc:
        raise serializers.ValidationError(str(exc), code="invalid") from exc


def valid_target(value: str) -> None:
    """Raise a field error unless sessions may be bound to the provider."""
    try:
        check_target(value)
    except UnknownProvider as exc:
        raise serializers.ValidationError(str(exc), code="unknown") from exc


class TextField(serializers.CharField):
    """A JSON string, unchanged: not trimmed, and numbers are invalid."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the string unchanged."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


def with_owner(data: Any) -> Any:
    """Return the input with `owner` for `external_id`, its name in 0.1, which the next version refuses.

    Both together are an error, unless they are equal, as in the response for a session.
    """
    if not isinstance(data, Mapping) or "external_id" not in data:
        return data
    renamed = {name: value for name, value in data.items() if name != "external_id"}
    if renamed.setdefault("owner", data["external_id"]) != data["external_id"]:
        raise serializers.ValidationError({"external_id": ["A former name of owner; pass only owner."]})
    return renamed


@extend_schema_serializer(component_name="StickySession", deprecate_fields=["external_id"])
class SessionSerializer(Serializer):
    """The binding of a conversation to a provider and a model."""

    id = TextField(
        validators=[valid_conversation_id],
        help_text=f"Conversation id: 1 to {keys.MAX_CONVERSATION_ID_LENGTH} characters, no control characters.",
    )
    provider = TextField(
        max_length=MAX_NAME_LENGTH,
        validators=[*TEXT, valid_target],
        help_text="Provider that serves the conversation.",
    )
    model = TextField(max_length=MAX_NAME_LENGTH, validators=TEXT, help_text="Model that serves the conversation.")
    owner = TextField(
        max_length=MAX_NAME_LENGTH,
        allow_blank=True,
        validators=[no_control_characters],
        help_text="Owner of the conversation; may be blank.",
    )
    external_id = serializers.CharField(read_only=True, help_text="Former name of `owner`.")
    created_at = serializers.IntegerField(read_only=True, help_text="Time of the binding, in Unix seconds, as stored.")
    created_at_iso = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="`created_at` in UTC; null if it is outside of the calendar."
    )
    expires_in = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="Idle time left in seconds, rounded up; null if the cache does not know it.",
    )
    expires_at = serializers.DateTimeField(
        read_only=True,
        allow_null=True,
        help_text="Expiry in UTC if the session is not used before; null if the cache does not know it.",
    )
    url = serializers.CharField(read_only=True, help_text="Path of this session, escaped.")

    def to_internal_value(self, data: Any) -> Any:
        """Accept the owner under its name of 0.1."""
        return super().to_internal_value(with_owner(data))

    def to_representation(self, instance: Entry) -> dict[str, Any]:
        """Return the fields of the session, its expiry and its path."""
        return _serialize(instance, sessions_path(self.context["request"]), int(time.time()))


class RebindSerializer(Serializer):
    """The target of a move."""

    provider = TextField(max_length=MAX_NAME_LENGTH, validators=[*TEXT, valid_target], help_text="Provider to move to.")
    model = TextField(max_length=MAX_NAME_LENGTH, validators=TEXT, help_text="Model to move to.")
    reason = TextField(max_length=MAX_REASON_LENGTH, validators=TEXT, help_text="Reason, stored in the history.")
    from_provider = TextField(
        required=False,
        allow_blank=True,
        help_text="Required current provider, otherwise 409; by default any.",
    )


class NamedChoiceField(serializers.ChoiceField):
    """A choice whose values are the component `component` of the OpenAPI document."""

    def __init__(self, component: str, choices: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(choices, **kwargs)
        self.component = component


class InstantField(serializers.DateTimeField):
    """A UTC time to the millisecond."""

    def to_representation(self, value: datetime) -> str:
        """Return it in ISO 8601, with a `Z`."""
        return format_datetime(value, "milliseconds")


class EventSerializer(Serializer):
    """One change of a conversation's binding."""

    kind = NamedChoiceField("StickySessionEventKind", get_args(Kind), help_text="Kind of change.")
    at = InstantField(help_text="Time in UTC.")
    provider = serializers.CharField(help_text="Provider afterwards, or before a deletion; empty if it was unreadable.")
    model = serializers.CharField(help_text="Model afterwards, or before a deletion; empty if it was unreadable.")
    from_provider = serializers.CharField(allow_null=True, help_text="Provider before a rebind, else null.")
    from_model = serializers.CharField(allow_null=True, help_text="Model before a rebind, else null.")
    reason = serializers.CharField(help_text="Reason; may be empty.")
    actor = serializers.CharField(help_text="`gateway` or the name of a user.")


def serialize_sessions(entries: Iterable[Entry], request: Request) -> list[dict[str, Any]]:
    """Serialize many sessions like `SessionSerializer`, but compute the path prefix and the time only once."""
    under, now = sessions_path(request), int(time.time())
    return [_serialize(entry, under, now) for entry in entries]


def _serialize(entry: Entry, under: str, now: int) -> dict[str, Any]:
    # By hand: DRF takes field by field, 30 times as long, and a page may have 1,000 sessions.
    session = entry.session
    return {
        "id": session.id,
        "provider": session.provider,
        "model": session.model,
        "owner": session.external_id,
        "external_id": session.external_id,
        "created_at": session.created_at,
        "created_at_iso": format_any(session.created_at),
        "expires_in": entry.expires_in,
        "expires_at": None if entry.expires_in is None else format_any(now + entry.expires_in),
        "url": session_path(session.id, under),
    }
