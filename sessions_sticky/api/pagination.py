"""Query parameters of the list of sessions, and links between its pages."""

from __future__ import annotations

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.versioning import QueryParameterVersioning

from sessions_sticky.api.serializers import TextField, with_owner
from sessions_sticky.queries.pages import MAX_PAGE

DEFAULT_LIMIT = 50
MAX_TRAIL_LENGTH = 1_000
"""Maximum length of a cursor with those of earlier pages; many servers limit URLs to 8,000 characters."""


class ListQuerySerializer(serializers.Serializer[Any]):
    """The query parameters of the list. A session matches if it equals every filter given."""

    provider = TextField(required=False, help_text="Only sessions on this provider.")
    model = TextField(required=False, help_text="Only sessions on this model.")
    owner = TextField(
        required=False, allow_blank=True, help_text="Only sessions of this owner; empty for sessions without an owner."
    )
    search = TextField(
        required=False,
        help_text="The session with this id, else the sessions of this owner, else those whose id contains the text, in"
        " no order. Case-sensitive; cannot be combined with a filter.",
    )
    cursor = TextField(
        required=False,
        validators=[RegexValidator(r"[^.]\Z", "The cursor was not issued by an earlier page.")],
        help_text="Position, from `next` or `previous`.",
    )
    limit = serializers.IntegerField(
        default=DEFAULT_LIMIT, min_value=1, max_value=MAX_PAGE, help_text="Maximum number of sessions."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a search with filters."""
        if "search" in attrs and attrs.keys() & {"provider", "model", "owner"}:
            raise ValidationError({"search": ["Cannot be combined with provider, model or owner."]})
        return attrs


def parameters(request: Request, query: type[serializers.Serializer[Any]] = serializers.Serializer) -> dict[str, Any]:
    """Return the validated query parameters; an unknown one, such as a misspelt filter, is an error."""
    general = (_version_parameter(), api_settings.URL_FORMAT_OVERRIDE)
    given = {name: values for name, values in request.query_params.lists() if name not in general}
    if "external_id" in given and "owner" in query().fields:
        given = with_owner(given)
    serializer = query(data={name: values[0] for name, values in given.items()})
    allowed = serializer.fields
    unknown = f"Unknown parameter; allowed: {', '.join(allowed) or 'none'}."
    errors = {name: [unknown] for name in given if name not in allowed}
    errors |= {name: ["Given more than once."] for name, values in given.items() if name in allowed and values[1:]}
    if errors:
        raise ValidationError(errors)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def links(request: Request, cursor: str | None, next_cursor: str | None) -> dict[str, str | None]:
    """Return the URLs of the pages after and before the one that `cursor` asked for.

    A cursor of this API is the manager's, with a trail of those of the pages before in front. A trail that gets too
    long loses its beginning, and begins with a full stop then.
    """
    url = request.build_absolute_uri()
    passed = cursor.split(".") if cursor else []
    following = previous = None
    if next_cursor:
        following = replace_query_param(url, "cursor", _trail([*passed, next_cursor]))
    if passed[:-1] not in ([], [""]):
        previous = replace_query_param(url, "cursor", ".".join(passed[:-1]))
    elif len(passed) == 1:
        previous = remove_query_param(url, "cursor")
    return {"next": following, "previous": previous}


def last_of(cursor: str | None) -> str | None:
    """Return the manager's cursor in one of this API."""
    return cursor.rpartition(".")[2] if cursor else None


def _trail(cursors: list[str]) -> str:
    trail = ".".join(cursors)
    while len(trail) > MAX_TRAIL_LENGTH and "." in trail[1:]:
        trail = f".{trail.lstrip('.').partition('.')[2]}"
    return trail


def _version_parameter() -> str | None:
    """Return the parameter that has the version in a project that versions its own API by a parameter."""
    scheme: Any = api_settings.DEFAULT_VERSIONING_CLASS
    return scheme.version_param if scheme is not None and issubclass(scheme, QueryParameterVersioning) else None
