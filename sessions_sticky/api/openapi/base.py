"""What the descriptions of all routes have in common."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.views import APIView

from sessions_sticky.api.serializers import SessionSerializer

PROBLEMS = {
    400: "The input does not fit; `errors` says where and why.",
    401: "Nobody is logged in.",
    403: "The user may not do this, or the CSRF token is missing.",
    404: "There is no such thing.",
    405: "The path means another thing, with which this cannot be done.",
    406: "The client takes no JSON.",
    409: "The conversation is bound otherwise; `current` says how, to those who may read it.",
    415: "The body is not JSON.",
    429: "The user has called too often.",
    501: "The configured cache or the settings cannot do this; `detail` says what can.",
    503: "The session store did not answer; nothing is known.",
}
"""What each status says."""

ALWAYS = (401, 403, 406, 429, 503)
"""What every operation may answer."""

HEADERS = (
    OpenApiParameter("WWW-Authenticate", str, "header", response=[401], description="How to log in."),
    OpenApiParameter("Retry-After", int, "header", response=[429, 503], description="When to try again, in seconds."),
)
LOCATION = OpenApiParameter("Location", str, "header", response=[201, 202], description="Path of what was made.")


class ProblemSerializer(serializers.Serializer[Any]):
    """An error, as RFC 9457 has it."""

    type = serializers.CharField(help_text="Always `about:blank`: the status says what it is.")
    title = serializers.CharField(help_text="The status in words.")
    status = serializers.IntegerField(help_text="The HTTP status.")
    detail = serializers.CharField(help_text="What went wrong.")
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
        help_text="The session as it is, null when there is none (any more); only for those who may read it.",
    )


def operation(
    operation_id: str,
    summary: str,
    *problems: int,
    ok: dict[int, tuple[Any, str]],
    parameters: tuple[Any, ...] = (),
    request: Any = None,
    tag: str = "sessions",
) -> Any:
    """Return the description of a view's method: what it takes, what it answers.

    `ok` has a serializer (None: no body) and what it says for each status; `problems` come on top of `ALWAYS`.
    """
    answers: dict[Any, Any] = {status: OpenApiResponse(*answer) for status, answer in ok.items()}
    for problem in sorted({*ALWAYS, *problems}):
        shape = ConflictSerializer if problem == HTTPStatus.CONFLICT else ProblemSerializer
        answers[problem, "application/problem+json"] = OpenApiResponse(shape, PROBLEMS[problem])
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        parameters=[*parameters, *HEADERS],
        request=request,
        responses=answers,
        tags=[tag],
    )


class Documented(OpenApiViewExtension):
    """A view with the descriptions of its methods."""

    operations: ClassVar[dict[str, Any]] = {}

    def view_replacement(self) -> type[APIView]:
        """Return a view with the same methods, described; others, which it inherits, are left out."""
        inherited = {
            name: extend_schema(exclude=True)
            for name in self.target.http_method_names
            if hasattr(self.target, name) and name not in self.operations
        }
        view = type(self.target.__name__, (self.target,), {"__doc__": self.target.__doc__})
        described: type[APIView] = extend_schema_view(**{**inherited, **self.operations})(view)
        return described
