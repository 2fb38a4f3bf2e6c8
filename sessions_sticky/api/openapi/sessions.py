"""The routes of single sessions, of the list and of the statistics."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction, OpenApiParameter
from rest_framework import serializers

from sessions_sticky.api.openapi.base import LOCATION, Documented, operation
from sessions_sticky.api.pagination import ListQuerySerializer
from sessions_sticky.api.serializers import (
    EventSerializer,
    RebindSerializer,
    SessionSerializer,
    StatsSerializer,
)
from sessions_sticky.keys import MAX_CONVERSATION_ID_LENGTH

NO_CONTROL_CHARACTERS = r"^[^\u0000-\u001f\u007f-\u009f]+$"
UNSEEN = "Done; for users who may not view sessions."
ID = OpenApiParameter(
    "id",
    {"type": "string", "minLength": 1, "maxLength": MAX_CONVERSATION_ID_LENGTH + 1, "pattern": NO_CONTROL_CHARACTERS},
    "path",
    description=(
        "Conversation id, percent-encoded as one segment (`/` as `%2F`). The `url` of a session has it ready for use."
        " Whoever writes it by hand puts a `~` in front of what follows the last `/` of an id where that is, after any"
        " number of `~`, one of `.`, `..`, `stats`, `history` and `operations`, or where the id is `operations/` and 32"
        " hexadecimal digits."
    ),
)


class PageSerializer(serializers.Serializer[Any]):
    """Some sessions."""

    results = SessionSerializer(
        many=True,
        help_text="Most recently active first, to the minute. May be short, even empty, before the last page.",
    )
    next = serializers.URLField(allow_null=True, help_text="The page after this one; null on the last.")
    previous = serializers.URLField(
        allow_null=True,
        help_text="The page before this one, as it is now; null on the first, and where a walk has left it far behind.",
    )
    count = serializers.IntegerField(help_text="How many sessions fit the filters, on all pages.")


class HistorySerializer(serializers.Serializer[Any]):
    """The history of one conversation."""

    results = EventSerializer(many=True, help_text="Oldest first; empty when nothing is known (any more).")


class Sessions(Documented):
    """All sessions."""

    target_class = "sessions_sticky.api.views.SessionsView"
    operations = {
        "get": operation(
            "sessions_list",
            "List sessions",
            400,
            501,
            ok={200: (PageSerializer, "A page.")},
            parameters=(ListQuerySerializer,),
        ),
        "post": operation(
            "sessions_create",
            "Bind a conversation",
            *(400, 409, 415),
            ok={201: (SessionSerializer, "Bound.")},
            parameters=(LOCATION,),
            request=SessionSerializer,
        ),
    }


class OneSession(Documented):
    """One session."""

    target_class = "sessions_sticky.api.views.SessionView"
    operations = {
        "get": operation(
            "sessions_retrieve",
            "Show a session",
            400,
            404,
            ok={200: (SessionSerializer, "The session.")},
            parameters=(ID,),
        ),
        "delete": operation(
            "sessions_delete", "Unbind a conversation", 400, 404, ok={204: (None, "Unbound.")}, parameters=(ID,)
        ),
    }


class Statistics(Documented):
    """Statistics."""

    target_class = "sessions_sticky.api.views.StatsView"
    operations = {
        "get": operation(
            "sessions_stats",
            "Count sessions by provider and model",
            400,
            501,
            ok={200: (StatsSerializer, "The numbers.")},
        )
    }


class History(Documented):
    """The history of one conversation."""

    target_class = "sessions_sticky.api.views.HistoryView"
    operations = {
        "get": operation(
            "sessions_history",
            "Show what happened to a conversation",
            400,
            501,
            ok={200: (HistorySerializer, "The events.")},
            parameters=(ID,),
        )
    }


class Touch(Documented):
    """Touch one session."""

    target_class = "sessions_sticky.api.views.TouchView"
    operations = {
        "post": operation(
            "sessions_touch",
            "Extend a session",
            400,
            404,
            ok={200: (SessionSerializer, "The session."), 204: (None, UNSEEN)},
            parameters=(ID,),
        )
    }


class Rebind(Documented):
    """Rebind one session."""

    target_class = "sessions_sticky.api.views.RebindView"
    operations = {
        "post": operation(
            "sessions_rebind",
            "Move a conversation",
            *(400, 404, 409, 415, 501),
            ok={200: (SessionSerializer, "The session, moved."), 204: (None, UNSEEN)},
            parameters=(ID,),
            request=RebindSerializer,
        )
    }


class ShownSession(OpenApiSerializerExtension):
    """A session that is shown may be one that another program has written, which knows none of this API's limits."""

    target_class = "sessions_sticky.api.serializers.SessionSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        """Return the schema, with limits only where they hold."""
        schema: dict[str, Any] = super().map_serializer(auto_schema, direction)
        properties = schema["properties"]
        properties["external_id"] |= properties["external_id"].pop("oneOf")[0]  # it also names the blank one apart
        if direction == "request":
            properties["id"] |= {"maxLength": MAX_CONVERSATION_ID_LENGTH, "pattern": NO_CONTROL_CHARACTERS}
            return schema
        for field in properties.values():
            for limit in ("minLength", "maxLength", "pattern"):
                field.pop(limit, None)
        return schema
