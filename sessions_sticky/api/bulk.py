"""Changing many sessions: the routes that begin it, and the operations that come of it.

A path of this module with another method than its own means a session, as everywhere in this API.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema_view
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sessions_sticky import audit
from sessions_sticky.api.bulk_serializers import (
    CountSerializer,
    DeleteAllSerializer,
    OperationSerializer,
    OperationsSerializer,
    RebindAllSerializer,
    operation_path,
)
from sessions_sticky.api.pagination import parameters
from sessions_sticky.api.permissions import SessionPermission, has_permission
from sessions_sticky.api.schema import COUNT_OR_OPERATION, KEY, LOCATION, RUNNING, only, operation
from sessions_sticky.api.views import SessionView
from sessions_sticky.jobs.records import Job, Kind
from sessions_sticky.jobs.service import Changed, Jobs

WAIT_SECONDS = 1.0
"""How long a request waits for its operation to end."""

PERMISSION: dict[Kind, str] = {"delete": "delete", "rebind": "change"}

AS_IT_IS = (OperationSerializer, "The operation.")

jobs = Jobs()


def _begins(operation_id: str, summary: str, request: type[DeleteAllSerializer]) -> Any:
    """Describe a view that begins a bulk operation."""
    counted = (COUNT_OR_OPERATION, "With `dry_run` the number; otherwise the operation, which has ended.")
    post = operation(
        operation_id,
        summary,
        *(400, 415, 501),
        ok={200: counted, 202: RUNNING},
        parameters=(LOCATION,),
        request=request,
        tag="operations",
    )
    return lambda view: only("post")(extend_schema_view(post=post)(view))


class BulkView(SessionView):
    """Begins a bulk operation."""

    serializer_class: ClassVar[type[DeleteAllSerializer]]

    def post(self, request: Request, conversation_id: str) -> Response:
        """Count, or begin and wait a moment."""
        parameters(request)
        asked = self.serializer_class(data=request.data)
        asked.is_valid(raise_exception=True)
        if asked.validated_data["dry_run"]:
            return Response(CountSerializer({"count": jobs.count(asked.plan())}).data)
        job = jobs.start(asked.plan(), actor=request.user.get_username())
        audit.record_job(request, job, f"Begun, {job.expected} sessions expected")
        return _answer(request, job)


@_begins("sessions_delete_all", "Unbind many conversations", DeleteAllSerializer)
class DeleteAllView(BulkView):
    """Deletes many sessions."""

    permission = "delete"
    serializer_class = DeleteAllSerializer


@_begins("sessions_rebind_all", "Move many conversations", RebindAllSerializer)
class RebindAllView(BulkView):
    """Moves many sessions."""

    permission = "change"
    serializer_class = RebindAllSerializer


@only("get")
class OperationsView(SessionView):
    """The operations that changed last."""

    @operation("operations_list", "List bulk operations", 400, 501, ok={200: (OperationsSerializer, "Them.")})
    def get(self, request: Request, conversation_id: str) -> Response:
        """List them, the last begun first."""
        parameters(request)
        return Response({"results": OperationSerializer(jobs.recent(), many=True, context={"request": request}).data})


class OperationPermission(SessionPermission):
    """Let those act on an operation who may begin one of its kind."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Tell whether the user may act on operations of any kind."""
        if request.method != "POST":
            return super().has_permission(request, view)
        user = request.user
        return bool(
            user and user.is_authenticated and any(has_permission(user, needed) for needed in PERMISSION.values())
        )

    def has_object_permission(self, request: Request, view: APIView, obj: Job) -> bool:
        """Tell whether the user may act on this operation."""
        return has_permission(request.user, PERMISSION[obj.kind])


class KeyView(SessionView):
    """A path with the key of an operation in it."""

    ending: ClassVar[str] = ""

    def dispatch(self, request: HttpRequest, *args: Any, id: str = "", **kwargs: Any) -> HttpResponseBase:
        """Find the key in the path, and the conversation id that it might be."""
        self.key = kwargs.pop("key")
        return super().dispatch(request, *args, id=f"operations/{self.key}{self.ending}", **kwargs)

    def check(self, request: Request) -> None:
        """Refuse a call that has parameters, no operation, or a user who may not act on it."""
        parameters(request)
        job = jobs.peek(self.key)
        if job is None:
            raise _unknown(self.key)
        self.check_object_permissions(request, job)


@only("get")
class OperationView(KeyView):
    """One operation."""

    @operation(
        "operations_retrieve",
        "Show how far a bulk operation is",
        *(400, 404, 501),
        ok={200: AS_IT_IS},
        parameters=(KEY,),
    )
    def get(self, request: Request, conversation_id: str) -> Response:
        """Show how far it is; goes on with it when the worker that did is gone."""
        parameters(request)
        job = jobs.get(self.key)
        if job is None:
            raise _unknown(self.key)
        return Response(_shown(request, job))


@only("post")
class StopView(KeyView):
    """Stops one operation."""

    ending = "/stop"
    permission_classes = (OperationPermission,)

    @operation(
        "operations_stop",
        "Stop a bulk operation",
        *(400, 404, 405, 501),
        ok={200: AS_IT_IS},
        parameters=(KEY,),
    )
    def post(self, request: Request, conversation_id: str) -> Response:
        """Stop it, unless it has ended."""
        self.check(request)
        return Response(_shown(request, _changed(request, self.key, jobs.stop(self.key), "Stopped")))


@only("post")
class ResumeView(KeyView):
    """Resumes one operation."""

    ending = "/resume"
    permission_classes = (OperationPermission,)

    @operation(
        "operations_resume",
        "Go on with a bulk operation",
        *(400, 404, 405, 501),
        ok={200: (OperationSerializer, "The operation, which has ended."), 202: RUNNING},
        parameters=(KEY, LOCATION),
    )
    def post(self, request: Request, conversation_id: str) -> Response:
        """Go on with it and wait a moment, if it was stopped or has failed."""
        self.check(request)
        return _answer(request, _changed(request, self.key, jobs.resume(self.key), "Resumed"))


def _answer(request: Request, job: Job) -> Response:
    job = jobs.wait(job, WAIT_SECONDS)
    if job.state != "running":
        return Response(_shown(request, job))
    return Response(_shown(request, job), 202, headers={"Location": operation_path(request, job.key)})


def _shown(request: Request, job: Job) -> Any:
    return OperationSerializer(job, context={"request": request}).data


def _changed(request: Request, key: str, found: Changed | None, what: str) -> Job:
    if found is None:
        raise _unknown(key)
    if found.changed:
        audit.record_job(request, found.job, f"{what}, {found.job.done} of {found.job.expected} sessions done")
    return found.job


def _unknown(key: str) -> NotFound:
    return NotFound(f"There is no operation {key}; they are kept for a day.")
