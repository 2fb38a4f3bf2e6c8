"""The routes that change many sessions, and their operations."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer

from sessions_sticky.api.bulk_serializers import (
    CountSerializer,
    DeleteAllSerializer,
    OperationSerializer,
    OperationsSerializer,
    RebindAllSerializer,
)
from sessions_sticky.api.openapi.base import LOCATION, Documented, operation

KEY = OpenApiParameter(
    "key", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "path", description="Key of the operation, from its `url`."
)
ENDED = (OperationSerializer, "The operation, which has ended.")
RUNNING = (OperationSerializer, "The operation, which goes on; `Location` says where to see how far it is.")
AS_IT_IS = (OperationSerializer, "The operation.")


def begin(operation_id: str, summary: str, request: Any) -> Any:
    """Return the description of a route that begins an operation."""
    counted = PolymorphicProxySerializer(
        component_name="CountOrOperation",
        serializers=[CountSerializer, OperationSerializer],
        resource_type_field_name=None,
    )
    return operation(
        operation_id,
        summary,
        *(400, 415, 501),
        ok={200: (counted, "With `dry_run` the number; otherwise the operation, which has ended."), 202: RUNNING},
        parameters=(LOCATION,),
        request=request,
        tag="operations",
    )


class DeleteAll(Documented):
    """Deleting many sessions."""

    target_class = "sessions_sticky.api.bulk.DeleteAllView"
    operations = {"post": begin("sessions_delete_all", "Unbind many conversations", DeleteAllSerializer)}


class RebindAll(Documented):
    """Moving many sessions."""

    target_class = "sessions_sticky.api.bulk.RebindAllView"
    operations = {"post": begin("sessions_rebind_all", "Move many conversations", RebindAllSerializer)}


class Operations(Documented):
    """The latest operations."""

    target_class = "sessions_sticky.api.bulk.OperationsView"
    operations = {
        "get": operation(
            "operations_list",
            "List bulk operations",
            400,
            501,
            ok={200: (OperationsSerializer, "Them.")},
            tag="operations",
        )
    }


class OneOperation(Documented):
    """One operation."""

    target_class = "sessions_sticky.api.bulk.OperationView"
    operations = {
        "get": operation(
            "operations_retrieve",
            "Show how far a bulk operation is",
            *(400, 404, 501),
            ok={200: AS_IT_IS},
            parameters=(KEY,),
            tag="operations",
        )
    }


class Stop(Documented):
    """Stopping one operation."""

    target_class = "sessions_sticky.api.bulk.StopView"
    operations = {
        "post": operation(
            "operations_stop",
            "Stop a bulk operation",
            *(400, 404, 405, 501),
            ok={200: AS_IT_IS},
            parameters=(KEY,),
            tag="operations",
        )
    }


class Resume(Documented):
    """Resuming one operation."""

    target_class = "sessions_sticky.api.bulk.ResumeView"
    operations = {
        "post": operation(
            "operations_resume",
            "Go on with a bulk operation",
            *(400, 404, 405, 501),
            ok={200: ENDED, 202: RUNNING},
            parameters=(KEY, LOCATION),
            tag="operations",
        )
    }
