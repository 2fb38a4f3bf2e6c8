"""The paths of stored responses and conversations, which are routed by object, not by model."""

from __future__ import annotations

from collections.abc import Sequence

from django.urls import re_path

from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.base import ROOT, ApiRequest, Reference, Stage
from sentinel_project.gateway.apis.body import Body
from sentinel_project.gateway.apis.responses import Responses
from sentinel_project.gateway.apis.upstream_objects import not_found
from sentinel_project.gateway.calls import Call
from sentinel_project.gateway.endpoint import Endpoint, endpoint, respond
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.key_limits import admit
from sentinel_project.gateway.replies import Reply
from sentinel_project.gateway.routing import objects
from sentinel_project.gateway.routing.dispatch import Served, dispatch
from sentinel_project.gateway.routing.plan import Plan
from sentinel_project.gateway.routing.planner import plan_any_model, without_failover
from sentinel_project.gateway.upstream.errors import UpstreamFailure
from sessions_sticky.identity import Identity

ID = "[A-Za-z0-9_][A-Za-z0-9_.:~-]{0,255}"
"""Characters that a URL keeps as they are, and not the dots that lead to another path."""

NO_CONVERSATION = Identity(None, "none", False, None, None, False)


class StoredObjects(Responses):
    """Return the stored object, even if it contains the error of a response that failed earlier."""

    binds = False
    may_have_error = True
    answer_field = ""

    def stage(self, event: bytes) -> Stage:
        """Let a failed response pass."""
        stage = super().stage(event)
        return Stage.CONTENT if stage is Stage.ERROR else stage

    def may_end_after(self, whole_events: bytes) -> bool:
        """The stream of a failed response ends with its error."""
        return any(super(StoredObjects, self).stage(event) is Stage.ERROR for event in events.split(whole_events))


STORED = StoredObjects()


def _view(kind: str, *methods: str) -> Endpoint:
    @endpoint(*methods)
    async def view(call: Call, object_id: str = "") -> Reply:
        owner = await admit(call)
        request = _request(call)
        call.log.note_request(NO_CONVERSATION, model="", is_stream=request.is_stream)
        references = [Reference(object_id, "path", not_found(kind, object_id))] if object_id else []
        placement = await objects.locate(references, owner)
        only = placement.providers if placement else None
        identity = NO_CONVERSATION._replace(ranking_id=object_id or None)
        plan = plan_any_model(identity, owner=owner, api=STORED.name, only=only)
        if not object_id:
            served = await objects.keep_made(request, plan, await dispatch(plan, request))
        elif only is None and request.method == "GET":
            served = await _ask_in_turn(plan, request)
        else:
            served = await dispatch(without_failover(plan), request)
        return respond(call, plan, served)

    return view


def _request(call: Call) -> ApiRequest:
    raw, path = call.body, call.path.removeprefix(ROOT)
    body = Body.parse(raw) if raw else Body({}, raw)
    method = "GET" if call.method == "HEAD" else call.method  # our server leaves the body out
    is_stream = method == "GET" and call.parameter("stream") == "true"
    return ApiRequest(STORED, body, "", is_stream, call.headers, call.query, method, path, call.slot)


async def _ask_in_turn(plan: Plan, request: ApiRequest) -> Served:
    """Request an unknown object from all providers. Raises 404 only if all return it."""
    unknown: ApiError | None = None
    for provider in plan.candidates:
        try:
            return await dispatch(plan._replace(candidates=[provider]), request)
        except ApiError as exc:
            if exc.status != 404 and not isinstance(exc, UpstreamFailure):
                raise
            if unknown is None or exc.status != 404:
                unknown = exc
    assert unknown is not None  # noqa: S101 - a plan has at least one candidate
    raise unknown


_Path = tuple[str, str, Sequence[str]]
_PATHS: tuple[_Path, ...] = (
    (f"responses/(?P<object_id>{ID})", "Response", ("GET", "DELETE")),
    (f"responses/(?P<object_id>{ID})/cancel", "Response", ("POST",)),
    (f"responses/(?P<object_id>{ID})/input_items", "Response", ("GET",)),
    ("conversations", "Conversation", ("POST",)),
    (f"conversations/(?P<object_id>{ID})", "Conversation", ("GET", "POST", "DELETE")),
    (f"conversations/(?P<object_id>{ID})/items", "Conversation", ("GET", "POST")),
    (f"conversations/(?P<object_id>{ID})/items/{ID}", "Conversation", ("GET", "DELETE")),
)
urlpatterns = [re_path(rf"^{ROOT[1:]}/{path}\Z", _view(kind, *methods)) for path, kind, methods in _PATHS]
