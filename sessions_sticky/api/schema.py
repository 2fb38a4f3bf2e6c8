"""What the API's OpenAPI description says of every operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import (
    Direction,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework import serializers

from sessions_sticky.api.bulk_serializers import CountSerializer, OperationSerializer
from sessions_sticky.api.serializers import EventSerializer, NamedChoiceField, Serializer, SessionSerializer
from sessions_sticky.api.turn_serializers import TrailSerializer
from sessions_sticky.keys import MAX_CONVERSATION_ID_LENGTH

F = TypeVar("F", bound=Callable[..., Any])

PROBLEMS = {
    400: "Invalid input: see `errors`.",
    401: "Not authenticated.",
    403: "The user may not do this, or the CSRF token is missing.",
    404: "Not found.",
    406: "The client does not accept JSON.",
    409: "The conversation has another binding: see `current`.",
    415: "The body is not JSON.",
    429: "Too many requests of this user.",
    501: "The configured cache or the settings do not support this; see `detail`.",
    503: "The session store is unavailable.",
}
"""Descriptions by status."""

ALWAYS = (400, 401, 403, 406, 429, 503)
"""Statuses that every operation may return."""

HEADERS = (
    OpenApiParameter("WWW-Authenticate", str, "header", response=[401], description="How to authenticate."),
    OpenApiParameter("Retry-After", int, "header", response=[429, 503], description="Seconds until a retry."),
)
LOCATION = OpenApiParameter("Location", str, "header", response=[201, 202], description="Path of the created resource.")
KEY = OpenApiParameter(
    "operation_key",
    {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "path",
    description="Key of the operation, from its `url`.",
)
NO_CONTROL_CHARACTERS = r"^[^\u0000-\u001f\u007f-\u009f]+$"
ID = OpenApiParameter(
    "conversation_id",
    {"type": "string", "minLength": 1, "maxLength": MAX_CONVERSATION_ID_LENGTH + 1, "pattern": NO_CONTROL_CHARACTERS},
    "path",
    description=(
        "Conversation id, percent-encoded as one segment (`/` as `%2F`). A last segment `.` or `..`, also after any"
        " number of `~`, is escaped with a leading `~`."
    ),
)


class ProblemSerializer(Serializer):
    """An error as defined in RFC 9457."""

    type = serializers.CharField(help_text="Always `about:blank`; see the status.")
    title = serializers.CharField(help_text="The reason phrase of the status.")
    status = serializers.IntegerField(help_text="The HTTP status.")
    detail = serializers.CharField(help_text="Explanation of the error.")
    errors = serializers.DictField(  # type: ignore[assignment]  # a field; it hides the serializer's own `errors`
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="Messages by field or parameter.",
    )


class ConflictSerializer(ProblemSerializer):
    """The conversation is bound otherwise."""

    current = SessionSerializer(
        required=False,
        allow_null=True,
        help_text="The current session or null; only for users who may view it.",
    )


class PageSerializer(Serializer):
    """Some sessions."""

    results = SessionSerializer(
        many=True,
        help_text="Most recently active first, to the minute. May be short, even empty, before the last page.",
    )
    next = serializers.URLField(allow_null=True, help_text="The page after this one; null on the last.")
    previous = serializers.URLField(
        allow_null=True,
        help_text="The page before this one, as it is now; null on the first, and on pages far from it.",
    )
    count = serializers.IntegerField(
        allow_null=True, help_text="How many sessions fit the filters, on all pages; null for a search."
    )


class HistorySerializer(Serializer):
    """The history of one conversation."""

    results = EventSerializer(many=True, help_text="Oldest first; empty without a history of this conversation.")
    trail = TrailSerializer(help_text="The last turns of the session; empty without one.")


RUNNING = OpenApiResponse(OperationSerializer, "The operation, which continues; `Location` is its path.")
COUNTED = OpenApiResponse(
    PolymorphicProxySerializer(
        component_name="StickySessionCountOrOperation",
        serializers=[CountSerializer, OperationSerializer],
        resource_type_field_name=None,
    ),
    "With `dry_run` the number, else the finished operation.",
)


def operation(
    operation_id: str,
    *problems: int,
    ok: dict[int, Any],
    parameters: Sequence[Any] = (),
    request: Any = None,
) -> Callable[[F], F]:
    """Describe a view's method; its documentation is the summary.

    Ids of operations, tags and names of components begin with `sticky`, so that they do not collide with the project's.

    `ok` has a serializer for each status, or its `OpenApiResponse`; `problems` come on top of `ALWAYS`.
    """
    statuses = sorted({*ALWAYS, *problems, *([415] if request else [])})
    answers: dict[Any, Any] = {
        status: answer if isinstance(answer, OpenApiResponse) else OpenApiResponse(answer, HTTPStatus(status).phrase)
        for status, answer in ok.items()
    }
    for problem in statuses:
        shape = ConflictSerializer if problem == HTTPStatus.CONFLICT else ProblemSerializer
        answers[problem, "application/problem+json"] = OpenApiResponse(shape, PROBLEMS[problem])

    def describe(method: F) -> F:
        return extend_schema(
            operation_id=f"sticky_{operation_id}",
            summary=str(method.__doc__).partition("\n")[0].rstrip("."),
            parameters=[*parameters, *HEADERS],
            request=request,
            responses=answers,
            tags=[f"sticky_{operation_id.partition('_')[0]}"],
        )(method)

    return describe


class SessionSchema(OpenApiSerializerExtension):
    """A session that is shown may be one that another program has written, which knows none of this API's limits."""

    target_class = "sessions_sticky.api.serializers.SessionSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        """Return the schema, with limits only where they hold."""
        schema: dict[str, Any] = super().map_serializer(auto_schema, direction)
        properties = schema["properties"]
        properties["owner"] |= properties["owner"].pop("oneOf")[0]  # it also names the blank one apart
        if direction == "request":
            properties["id"] |= {"maxLength": MAX_CONVERSATION_ID_LENGTH, "pattern": NO_CONTROL_CHARACTERS}
            return schema
        for field in properties.values():
            for limit in ("minLength", "maxLength", "pattern"):
                field.pop(limit, None)
        return schema


class ChoicesSchema(OpenApiSerializerFieldExtension):
    """The choices of a field as a component of their own.

    drf-spectacular names the choices of a field `kind` `KindEnum`, and warns when the project has a `kind` too.
    """

    target_class = NamedChoiceField

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        """Return a reference to the component."""
        field: NamedChoiceField = self.target
        schema = {"type": "string", "enum": list(field.choices)}
        component = ResolvedComponent(field.component, ResolvedComponent.SCHEMA, schema, object=field.component)
        auto_schema.registry.register_on_missing(component)
        reference: dict[str, Any] = component.ref
        return reference
