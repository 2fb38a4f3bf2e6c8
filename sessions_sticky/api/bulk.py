"""Bulk changes: the routes that start them, and the operations."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sessions_sticky import audit
from sessions_sticky.api.base import AdminView
from sessions_sticky.api.bulk_serializers import (
    DeleteAllSerializer,
    OperationSerializer,
    OperationsSerializer,
    RebindAllSerializer,
    operation_path,
)
from sessions_sticky.api.pagination import parameters
from sessions_sticky.api.permissions import SessionPermission, has_permission
from sessions_sticky.api.schema import COUNTED, KEY, LOCATION, RUNNING, operation
from sessions_sticky.jobs.job import PERMISSION, Job
from sessions_sticky.jobs.service import Changed, jobs

T = TypeVar("T")

WAIT_SECONDS = 1.0
"""How long a request waits for the end of its operation."""

STARTED = {200: COUNTED, 202: RUNNING}


class BulkView(AdminView):
    """Start a bulk operation."""

    def start(self, request: Request, kind: type[DeleteAllSerializer]) -> Response:
        """Count, or start and wait up to a second."""
        parameters(request)
        serializer = kind(data=request.data)
        serializer.is_valid(raise_exception=True)
        if serializer.validated_data["dry_run"]:
            return Response({"count": jobs.count(serializer.plan())})
        job = jobs.start(serializer.plan(), actor=audit.actor(request))
        audit.record_start(request, job)
        return _answer(request, job)


class DeleteAllView(BulkView):
    """Delete many sessions."""

    permission = "delete"

    @operation("sessions_delete_all", 501, ok=STARTED, parameters=[LOCATION], request=DeleteAllSerializer)
    def post(self, request: Request) -> Response:
        """Delete many sessions."""
        return self.start(request, DeleteAllSerializer)


class RebindAllView(BulkView):
    """Move many sessions."""

    permission = "change"

    @operation("sessions_rebind_all", 501, ok=STARTED, parameters=[LOCATION], request=RebindAllSerializer)
    def post(self, request: Request) -> Response:
        """Move many sessions."""
        return self.start(request, RebindAllSerializer)


class OperationsView(AdminView):
    """The most recent operations."""

    @operation("operations_list", 501, ok={200: OperationsSerializer})
    def get(self, request: Request) -> Response:
        """List bulk operations, the most recently started first."""
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

    @operation("operations_retrieve", 404, 501, ok={200: OperationSerializer}, parameters=[KEY])
    def get(self, request: Request, operation_key: str) -> Response:
        """Show the progress of a bulk operation."""
        parameters(request)
        return Response(_serialize(request, _find(operation_key)))


class StopView(AdminView):
    """Stop one operation."""

    permission_classes = (OperationPermission,)

    @operation("operations_stop", 404, 501, ok={200: OperationSerializer}, parameters=[KEY])
    def post(self, request: Request, operation_key: str) -> Response:
        """Stop a bulk operation, unless it is finished."""
        parameters(request)
        self.check_object_permissions(request, _find(operation_key))
        return Response(_serialize(request, _record_change(request, operation_key, jobs.stop(operation_key), "stop")))


class ResumeView(AdminView):
    """Resume one operation."""

    permission_classes = (OperationPermission,)

    @operation("operations_resume", 404, 501, ok={200: OperationSerializer, 202: RUNNING}, parameters=[KEY, LOCATION])
    def post(self, request: Request, operation_key: str) -> Response:
        """Resume a stopped or failed bulk operation, and wait up to a second for its end."""
        parameters(request)
        self.check_object_permissions(request, _find(operation_key))
        return _answer(request, _record_change(request, operation_key, jobs.resume(operation_key), "resume"))


def _find(key: str) -> Job:
    return _known(key, jobs.get(key))


def _answer(request: Request, job: Job) -> Response:
    job = jobs.wait(job, WAIT_SECONDS)
    if job.state != "running":
        return Response(_serialize(request, job))
    return Response(_serialize(request, job), 202, headers={"Location": operation_path(request, job.key)})


def _serialize(request: Request, job: Job) -> Any:
    return OperationSerializer(job, context={"request": request}).data


def _record_change(request: Request, key: str, found: Changed | None, action: Literal["stop", "resume"]) -> Job:
    change = _known(key, found)
    if change.changed:
        audit.record_progress(request, change.job, action)
    return change.job


def _known(key: str, found: T | None) -> T:
    if found is None:
        raise NotFound(f"No operation {key}. Operations are kept for a day.")
    return found
