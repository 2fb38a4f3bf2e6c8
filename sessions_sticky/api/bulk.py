"""Bulk changes: the routes that start them, and the operations."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from drf_spectacular.utils import extend_schema_view
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sessions_sticky import audit
from sessions_sticky.api.base import AdminView
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
from sessions_sticky.api.schema import COUNT_OR_OPERATION, KEY, LOCATION, RUNNING, operation
from sessions_sticky.jobs.job import Job, Kind
from sessions_sticky.jobs.service import Changed, Jobs

WAIT_SECONDS = 1.0
"""How long a request waits for the end of its operation."""

PERMISSION: dict[Kind, str] = {"delete": "delete", "rebind": "change"}

FOUND = (OperationSerializer, "The operation.")

jobs = Jobs()


def _starts_operation(operation_id: str, summary: str, request: type[DeleteAllSerializer]) -> Any:
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
    return extend_schema_view(post=post)


class BulkView(AdminView):
    """Start a bulk operation."""

    serializer_class: ClassVar[type[DeleteAllSerializer]]

    def post(self, request: Request) -> Response:
        """Count, or start and wait up to a second."""
        parameters(request)
        serializer = self.serializer_class(data=request.data)
        serializer.is_valid(raise_exception=True)
        if serializer.validated_data["dry_run"]:
            return Response(CountSerializer({"count": jobs.count(serializer.plan())}).data)
        job = jobs.start(serializer.plan(), actor=request.user.get_username())
        audit.record_start(request, job)
        return _answer(request, job)


@_starts_operation("sessions_delete_all", "Delete many sessions", DeleteAllSerializer)
class DeleteAllView(BulkView):
    """Delete many sessions."""

    permission = "delete"
    serializer_class = DeleteAllSerializer


@_starts_operation("sessions_rebind_all", "Move many sessions", RebindAllSerializer)
class RebindAllView(BulkView):
    """Move many sessions."""

    permission = "change"
    serializer_class = RebindAllSerializer


class OperationsView(AdminView):
    """The most recent operations."""

    @operation("operations_list", "List bulk operations", 400, 501, ok={200: (OperationsSerializer, "The operations.")})
    def get(self, request: Request) -> Response:
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
        self.message = "Requires the permission sessions_sticky.change_session or sessions_sticky.delete_session."
        return bool(
            user and user.is_authenticated and any(has_permission(user, needed) for needed in PERMISSION.values())
        )

    def has_object_permission(self, request: Request, view: APIView, obj: Job) -> bool:
        """Return whether the user may act on this operation."""
        self.message = f"Requires the permission sessions_sticky.{PERMISSION[obj.kind]}_session."
        return has_permission(request.user, PERMISSION[obj.kind])


class OperationView(AdminView):
    """One operation."""

    @operation(
        "operations_retrieve",
        "Show the progress of a bulk operation",
        *(400, 404, 501),
        ok={200: FOUND},
        parameters=(KEY,),
    )
    def get(self, request: Request, operation_key: str) -> Response:
        """Return the progress."""
        parameters(request)
        return Response(_serialize(request, _find(operation_key)))


class StopView(AdminView):
    """Stop one operation."""

    permission_classes = (OperationPermission,)

    @operation(
        "operations_stop",
        "Stop a bulk operation",
        *(400, 404, 405, 501),
        ok={200: FOUND},
        parameters=(KEY,),
    )
    def post(self, request: Request, operation_key: str) -> Response:
        """Stop it, unless it is finished."""
        parameters(request)
        self.check_object_permissions(request, _find(operation_key))
        return Response(_serialize(request, _record_change(request, operation_key, jobs.stop(operation_key), "stop")))


class ResumeView(AdminView):
    """Resume one operation."""

    permission_classes = (OperationPermission,)

    @operation(
        "operations_resume",
        "Resume a bulk operation",
        *(400, 404, 405, 501),
        ok={200: (OperationSerializer, "The finished operation."), 202: RUNNING},
        parameters=(KEY, LOCATION),
    )
    def post(self, request: Request, operation_key: str) -> Response:
        """Resume a stopped or failed operation and wait up to a second."""
        parameters(request)
        self.check_object_permissions(request, _find(operation_key))
        return _answer(request, _record_change(request, operation_key, jobs.resume(operation_key), "resume"))


def _find(key: str) -> Job:
    job = jobs.get(key)
    if job is None:
        raise _unknown(key)
    return job


def _answer(request: Request, job: Job) -> Response:
    job = jobs.wait(job, WAIT_SECONDS)
    if job.state != "running":
        return Response(_serialize(request, job))
    return Response(_serialize(request, job), 202, headers={"Location": operation_path(request, job.key)})


def _serialize(request: Request, job: Job) -> Any:
    return OperationSerializer(job, context={"request": request}).data


def _record_change(request: Request, key: str, found: Changed | None, action: Literal["stop", "resume"]) -> Job:
    if found is None:
        raise _unknown(key)
    if found.changed:
        audit.record_progress(request, found.job, action)
    return found.job


def _unknown(key: str) -> NotFound:
    return NotFound(f"No operation {key}. Operations are kept for a day.")
