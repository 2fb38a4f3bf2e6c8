"""Bulk changes: the routes that start them, and the operations.

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
"""How long a request waits for the end of its operation."""

PERMISSION: dict[Kind, str] = {"delete": "delete", "rebind": "change"}

AS_IT_IS = (OperationSerializer, "The operation.")

jobs = Jobs()


def _begins(operation_id: str, summary: str, request: type[DeleteAllSerializer]) -> Any:
    """Describe a view that starts a bulk operation."""
    counted = (COUNT_OR_OPERATION, "With `dry_run` the number, else the finished operation.")
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
    """Start a bulk operation."""

    serializer_class: ClassVar[type[DeleteAllSerializer]]

    def post(self, request: Request, conversation_id: str) -> Response:
        """Count, or start and wait up to a second."""
        parameters(request)
        asked = self.serializer_class(data=request.data)
        asked.is_valid(raise_exception=True)
        if asked.validated_data["dry_run"]:
            return Response(CountSerializer({"count": jobs.count(asked.plan())}).data)
        job = jobs.start(asked.plan(), actor=request.user.get_username())
        audit.record_job(request, job, f"Started, {job.expected} sessions expected")
        return _answer(request, job)


@_begins("sessions_delete_all", "Delete many sessions", DeleteAllSerializer)
class DeleteAllView(BulkView):
    """Delete many sessions."""

    permission = "delete"
    serializer_class = DeleteAllSerializer


@_begins("sessions_rebind_all", "Move many sessions", RebindAllSerializer)
class RebindAllView(BulkView):
    """Move many sessions."""

    permission = "change"
    serializer_class = RebindAllSerializer


@only("get")
class OperationsView(SessionView):
    """The most recent operations."""

    @operation("operations_list", "List bulk operations", 400, 501, ok={200: (OperationsSerializer, "The operations.")})
    def get(self, request: Request, conversation_id: str) -> Response:
        """List them, the most recently started first."""
        parameters(request)
        return Response({"results": OperationSerializer(jobs.recent(), many=True, context={"request": request}).data})


class OperationPermission(SessionPermission):
    """Permit acting on an operation to users who may start one of its kind."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the user may act on any kind of operation."""
        if request.method != "POST":
            return super().has_permission(request, view)
        user = request.user
        return bool(
            user and user.is_authenticated and any(has_permission(user, needed) for needed in PERMISSION.values())
        )

    def has_object_permission(self, request: Request, view: APIView, obj: Job) -> bool:
        """Return whether the user may act on this operation."""
        return has_permission(request.user, PERMISSION[obj.kind])


class KeyView(SessionView):
    """A path that contains the key of an operation."""

    ending: ClassVar[str] = ""

    def dispatch(self, request: HttpRequest, *args: Any, id: str = "", **kwargs: Any) -> HttpResponseBase:
        """Parse the key, and the conversation id that the path may also be."""
        self.key = kwargs.pop("key")
        return super().dispatch(request, *args, id=f"operations/{self.key}{self.ending}", **kwargs)

    def check(self, request: Request) -> None:
        """Refuse query parameters, unknown operations and users without permission."""
        parameters(request)
        job = jobs.get(self.key)
        if job is None:
            raise _unknown(self.key)
        self.check_object_permissions(request, job)


@only("get")
class OperationView(KeyView):
    """One operation."""

    @operation(
        "operations_retrieve",
        "Show the progress of a bulk operation",
        *(400, 404, 501),
        ok={200: AS_IT_IS},
        parameters=(KEY,),
    )
    def get(self, request: Request, conversation_id: str) -> Response:
        """Return the progress."""
        parameters(request)
        job = jobs.get(self.key)
        if job is None:
            raise _unknown(self.key)
        return Response(_shown(request, job))


@only("post")
class StopView(KeyView):
    """Stop one operation."""

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
        """Stop it, unless it is finished."""
        self.check(request)
        return Response(_shown(request, _changed(request, self.key, jobs.stop(self.key), "Stopped")))


@only("post")
class ResumeView(KeyView):
    """Resume one operation."""

    ending = "/resume"
    permission_classes = (OperationPermission,)

    @operation(
        "operations_resume",
        "Resume a bulk operation",
        *(400, 404, 405, 501),
        ok={200: (OperationSerializer, "The finished operation."), 202: RUNNING},
        parameters=(KEY, LOCATION),
    )
    def post(self, request: Request, conversation_id: str) -> Response:
        """Resume a stopped or failed operation and wait up to a second."""
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
    return NotFound(f"No operation {key}. Operations are kept for a day.")
