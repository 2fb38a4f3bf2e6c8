"""The recent events of all conversations."""

from __future__ import annotations

from typing import get_args

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_sticky.api.base import AdminView
from sessions_sticky.api.pagination import parameters
from sessions_sticky.api.schema import operation
from sessions_sticky.api.serializers import EventSerializer, NamedChoiceField, Serializer, TextField
from sessions_sticky.queries.pages import MAX_PAGE
from sessions_sticky.stores.history import EventFilter, Kind


class EventsQuerySerializer(Serializer):
    """The query parameters of the events."""

    kind = NamedChoiceField("StickySessionEventKind", get_args(Kind), required=False, help_text="Only of this kind.")
    provider = TextField(required=False, help_text="Only from or to this provider.")
    actor = TextField(required=False, help_text="Only by `gateway` or this user.")
    after = serializers.RegexField(
        r"^[0-9]{1,19}-[0-9]{1,19}$", required=False, help_text="Only after this position, oldest first."
    )
    limit = serializers.IntegerField(
        default=100, min_value=1, max_value=MAX_PAGE, help_text="How many events to read, before the filters."
    )


class RecentEventSerializer(EventSerializer):
    """One change of a conversation's binding, or a bulk operation."""

    conversation_id = serializers.CharField(help_text="The conversation; empty for a bulk operation.")
    sessions = serializers.IntegerField(help_text="Number of sessions; more than 1 only for a bulk operation.")
    operation = serializers.CharField(help_text="Key of the bulk operation, else empty.")
    position = serializers.CharField(help_text="For `after`.")


class EventsSerializer(Serializer):
    """Recent events."""

    results = RecentEventSerializer(many=True, help_text="The events, oldest first.")
    last = serializers.CharField(
        allow_null=True, help_text="Position of the last event that was read, for `after`; null if there was none."
    )


class EventsView(AdminView):
    """The recent events of all conversations."""

    @operation("sessions_events", 501, ok={200: EventsSerializer}, parameters=[EventsQuerySerializer])
    def get(self, request: Request) -> Response:
        """List the recent events: the last ones, or those after a position."""
        query = parameters(request, EventsQuerySerializer)
        event_filter = EventFilter(query.get("kind"), query.get("provider"), query.get("actor"))
        events = self.manager.recent(after=query.get("after"), limit=query["limit"])
        found = [event for event in events if event_filter.match(event)]
        last = events[-1].position if events else query.get("after")
        return Response(EventsSerializer({"results": found, "last": last}).data)
