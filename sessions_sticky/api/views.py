"""The routes: parse, call the manager, show."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from sessions_sticky import audit
from sessions_sticky.api.base import AdminView
from sessions_sticky.api.pagination import ListQuerySerializer, last_of, links, parameters
from sessions_sticky.api.permissions import has_permission
from sessions_sticky.api.problems import Conflict
from sessions_sticky.api.schema import ID, LOCATION, HistorySerializer, PageSerializer, operation
from sessions_sticky.api.serializers import RebindSerializer, SessionSerializer, serialize_sessions
from sessions_sticky.api.turn_serializers import StatsSerializer
from sessions_sticky.api.url_ids import session_path, sessions_path
from sessions_sticky.manager import sessions
from sessions_sticky.session import Entry, SessionConflict

CHANGED = {200: SessionSerializer, 204: OpenApiResponse(None, "Done; for users who may not view sessions.")}


class SessionsView(AdminView):
    """All sessions."""

    permission = "add"

    @operation("sessions_list", 501, ok={200: PageSerializer}, parameters=[ListQuerySerializer])
    def get(self, request: Request) -> Response:
        """List sessions, most recently active first."""
        query = parameters(request, ListQuerySerializer)
        cursor, limit, text = query.pop("cursor", None), query.pop("limit"), query.pop("search", None)
        count = None
        if text is not None:
            page = self.manager.search(text, cursor=last_of(cursor), limit=limit)
        else:
            found = self.manager.all().filter(**query)
            page, count = found.page(cursor=last_of(cursor), limit=limit), found.count()
        pages = links(request, cursor, page.next_cursor)
        return Response({"results": serialize_sessions(page.entries, request), **pages, "count": count})

    @operation("sessions_create", 409, ok={201: SessionSerializer}, parameters=[LOCATION], request=SessionSerializer)
    def post(self, request: Request) -> Response:
        """Bind a new conversation."""
        proposal = _validated(SessionSerializer(data=request.data))
        conversation_id = proposal.pop("id")
        try:
            session = self.manager.create(conversation_id, **proposal)
        except SessionConflict as exc:
            detail = f"Conversation {conversation_id!r} is already bound."
            raise _conflict(request, detail, detail, sessions.inspect(conversation_id)) from exc
        audit.record(request, audit.Flag.ADDITION, session.id, f"Bound to {session.provider}, {session.model}")
        entry = Entry(session, self.manager.ttl_seconds)
        location = session_path(session.id, sessions_path(request))
        return Response(_serialize(request, entry), 201, headers={"Location": location})


class SessionView(AdminView):
    """One session."""

    @operation("sessions_retrieve", 404, ok={200: SessionSerializer}, parameters=[ID])
    def get(self, request: Request, conversation_id: str) -> Response:
        """Show a session without extending it."""
        return Response(_serialize(request, _find(conversation_id)))

    @operation("sessions_delete", 404, ok={204: None}, parameters=[ID])
    def delete(self, request: Request, conversation_id: str) -> Response:
        """Delete a session."""
        if not self.manager.delete(conversation_id):
            raise _not_bound(conversation_id)
        audit.record_delete(request, conversation_id)
        return Response(status=204)


class StatsView(AdminView):
    """Statistics."""

    @operation("sessions_stats", 501, ok={200: StatsSerializer})
    def get(self, request: Request) -> Response:
        """Count the sessions of each provider and model."""
        parameters(request)
        counted, used = self.manager.stats(), self.manager.usage()
        numbers = {"sessions": counted.sessions, "routes": counted.routes, "usage": used.routes}
        return Response(StatsSerializer(numbers).data)


class HistoryView(AdminView):
    """The history of one conversation, whether or not it is bound now."""

    @operation("sessions_history", 501, ok={200: HistorySerializer}, parameters=[ID])
    def get(self, request: Request, conversation_id: str) -> Response:
        """Show the history of a conversation and the last turns of its session, oldest first."""
        parameters(request)
        events, trail = self.manager.history(conversation_id), self.manager.trail(conversation_id)
        return Response(HistorySerializer({"results": events, "trail": trail}).data)


class TouchView(AdminView):
    """Touch one session."""

    @operation("sessions_touch", 404, ok=CHANGED, parameters=[ID])
    def post(self, request: Request, conversation_id: str) -> Response:
        """Extend a session: reset its idle time."""
        if self.manager.touch(conversation_id):
            audit.record_touch(request, conversation_id)
        return _session_or_no_content(request, _find(conversation_id))


class RebindView(AdminView):
    """Rebind one session."""

    @operation("sessions_rebind", 404, 409, 501, ok=CHANGED, parameters=[ID], request=RebindSerializer)
    def post(self, request: Request, conversation_id: str) -> Response:
        """Move a conversation to another provider or model."""
        target = _validated(RebindSerializer(data=request.data))
        found = _find(conversation_id)
        if target.pop("from_provider", found.session.provider) != found.session.provider:
            raise _rebound_elsewhere(request, conversation_id, found)
        if (target["provider"], target["model"]) == (found.session.provider, found.session.model):
            return _session_or_no_content(request, found)  # repeated request: no move to count and record
        try:
            session = self.manager.rebind(found.session, **target)
        except SessionConflict as exc:
            raise _rebound_elsewhere(request, conversation_id, sessions.inspect(conversation_id)) from exc
        audit.record_move(request, found.session, session, target["reason"])
        return _session_or_no_content(request, Entry(session, found.expires_in))


class UnknownPathView(AdminView):
    """Unknown paths. Django would add a slash, but clients resolve the dots in `a/../b` when they follow a redirect."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse every method."""
        super().initial(request, *args, **kwargs)
        raise NotFound("Unknown path. The path of a session is id/{id}/, with a slash at the end.")


def _validated(serializer: BaseSerializer[Any]) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _find(conversation_id: str) -> Entry:
    entry = sessions.inspect(conversation_id)
    if entry is None:
        raise _not_bound(conversation_id)
    return entry


def _not_bound(conversation_id: str) -> NotFound:
    return NotFound(f"Conversation {conversation_id!r} is not bound.")


def _session_or_no_content(request: Request, entry: Entry) -> Response:
    """Return the changed session, or 204 for a user who may change but not view."""
    if not has_permission(request.user, "view"):
        return Response(status=204)
    return Response(_serialize(request, entry))


def _serialize(request: Request, entry: Entry) -> Any:
    return SessionSerializer(entry, context={"request": request}).data


def _rebound_elsewhere(request: Request, conversation_id: str, current: Entry | None) -> Conflict:
    detail = str(SessionConflict(conversation_id, current.session if current else None))
    trimmed = f"Conversation {conversation_id!r} is not bound as expected."
    return _conflict(request, detail, trimmed, current)


def _conflict(request: Request, detail: str, trimmed: str, current: Entry | None) -> Conflict:
    """Return the error with the current session; only `trimmed` for a user who may not view it."""
    if not has_permission(request.user, "view"):
        return Conflict(trimmed)
    return Conflict(detail, current=_serialize(request, current) if current else None)
