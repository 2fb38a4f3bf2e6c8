"""Serializers of the bulk routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from sessions_sticky.api.serializers import (
    TEXT,
    NamedChoiceField,
    Serializer,
    TextField,
    not_blank,
    valid_target,
    with_owner,
)
from sessions_sticky.api.url_ids import sessions_path
from sessions_sticky.jobs.job import Kind, Plan, State
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import MAX_NAME_LENGTH, MAX_REASON_LENGTH, Filters
from sessions_sticky.queries.times import format_any
from sessions_sticky.session import LATEST


class FlagField(serializers.BooleanField):
    """A JSON boolean; strings and numbers are invalid."""

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean unchanged."""
        if not isinstance(data, bool):
            self.fail("invalid", input=ascii(data)[:100])
        return data


def _seconds(help_text: str) -> serializers.FloatField:
    return serializers.FloatField(required=False, allow_null=True, min_value=0, max_value=LATEST, help_text=help_text)


def _name(help_text: str, validators: Sequence[Any] = (not_blank,)) -> TextField:
    return TextField(
        required=False, allow_null=True, max_length=MAX_NAME_LENGTH, validators=validators, help_text=help_text
    )


class DeleteAllSerializer(Serializer):
    """The sessions to delete: those that match all filters given, or everything."""

    provider = _name("Only sessions on this provider.")
    model = _name("Only sessions on this model.")
    owner = TextField(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_NAME_LENGTH,
        help_text="Only sessions of this owner; empty for sessions without an owner.",
    )
    idle_for = _seconds("Only sessions that were not used for so many seconds; never those found by content.")
    created_before = _seconds("Only sessions created before this time, in Unix seconds.")
    moved_from = _name("Only sessions whose last move came from this provider.")
    moved_since = _seconds("Only sessions whose last move was at this time or later, in Unix seconds.")
    operation = serializers.RegexField(
        "^[0-9a-f]{32}$",
        required=False,
        allow_null=True,
        help_text="Only sessions whose last move is of the operation with this key.",
    )
    everything = FlagField(default=False, help_text="True instead of a filter: all sessions.")
    dry_run = FlagField(default=False, help_text="True: only count.")

    def to_internal_value(self, data: Any) -> Any:
        """Refuse unknown fields: a misspelt filter must not select everything."""
        data = with_owner(data)
        if isinstance(data, Mapping) and (unknown := [name for name in data if name not in self.fields]):
            message = f"Unknown field; allowed: {', '.join(self.fields)}."
            raise serializers.ValidationError({ascii(name)[1:-1][:100]: [message] for name in unknown[:10]})
        return super().to_internal_value(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require either a filter or `everything`."""
        given = self._plan(attrs).has_filter
        if given and attrs["everything"]:
            raise serializers.ValidationError("Pass either filters or everything, not both.")
        if not given and not attrs["everything"]:
            names = ", ".join(Filters._fields)
            raise serializers.ValidationError(f"Pass a filter ({names}) or everything: true.")
        return attrs

    def plan(self) -> Plan:
        """Return the plan of the validated input."""
        return self._plan(self.validated_data)

    def _plan(self, data: dict[str, Any]) -> Plan:
        filters = Filters.of(data)
        return Plan(filters, self._move(data), data["everything"])

    def _move(self, data: dict[str, Any]) -> Move | None:
        return None


class RebindAllSerializer(DeleteAllSerializer):
    """The sessions to move, as for deleting, and the target."""

    to_provider = _name("Provider to move to; required without `back`.", [*TEXT, valid_target])
    to_model = _name("Model to move to; by default each session keeps its model.", TEXT)
    back = FlagField(
        default=False,
        help_text="True instead of a target: each session returns to where its last move came from. Needs moved_from,"
        " moved_since or operation.",
    )
    reason = TextField(max_length=MAX_REASON_LENGTH, validators=TEXT, help_text="Reason, stored in the history.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require either a target or `back`."""
        attrs = super().validate(attrs)
        if attrs["back"] and (attrs.get("to_provider") or attrs.get("to_model")):
            raise serializers.ValidationError({"back": ["Pass either a target or back, not both."]})
        if not attrs["back"] and attrs.get("to_provider") is None:
            raise serializers.ValidationError({"to_provider": ["This field is required without back."]})
        if attrs["back"] and not self._plan(attrs).filters.need_moves:
            raise serializers.ValidationError({"back": ["Needs moved_from, moved_since or operation."]})
        return attrs

    def _move(self, data: dict[str, Any]) -> Move | None:
        return Move(data.get("to_provider"), data.get("to_model"), data["reason"])


class CountSerializer(Serializer):
    """The result of a dry run."""

    count = serializers.IntegerField(help_text="Number of sessions it would change, according to the index.")


class OperationPathField(serializers.CharField):
    """The path of an operation, from its key."""

    def to_representation(self, value: str) -> str:
        """Return the path."""
        return operation_path(self.context["request"], value)


class UnixTimeField(serializers.DateTimeField):
    """A time in UTC, from Unix seconds."""

    def to_representation(self, value: int) -> str | None:  # type: ignore[override]
        """Return it in ISO 8601, with a `Z`."""
        return format_any(value)


@extend_schema_serializer(deprecate_fields=["external_id"])
class OperationSerializer(Serializer):
    """A bulk operation. Kept for a day after its last change."""

    url = OperationPathField(source="key", help_text="Path of this operation.")
    kind = NamedChoiceField("StickySessionOperationKind", get_args(Kind), help_text="What it does.")
    state = NamedChoiceField(
        "StickySessionOperationState",
        get_args(State),
        help_text="A stopped or failed one can be resumed.",
    )
    done = serializers.IntegerField(help_text="Sessions changed so far.")
    expected = serializers.IntegerField(
        help_text="Estimate of the sessions to change, of the start or the last resume; at first 0 with conditions."
    )
    provider = serializers.CharField(allow_null=True, help_text="Filter; null: any.")
    model = serializers.CharField(allow_null=True, help_text="Filter; null: any.")
    owner = serializers.CharField(allow_null=True, help_text="Filter; null: any.")
    external_id = serializers.CharField(source="owner", allow_null=True, help_text="Former name of `owner`.")
    idle_for = serializers.FloatField(allow_null=True, help_text="Filter in seconds; null: any.")
    created_before = serializers.FloatField(allow_null=True, help_text="Filter in Unix seconds; null: any.")
    moved_from = serializers.CharField(allow_null=True, help_text="Filter; null: any.")
    moved_since = serializers.FloatField(allow_null=True, help_text="Filter in Unix seconds; null: any.")
    operation = serializers.CharField(allow_null=True, help_text="Filter; null: any.")
    everything = serializers.BooleanField(help_text="Whether it applies to all sessions.")
    to_provider = serializers.CharField(
        allow_null=True, help_text="Provider to move to; null for deleting and for a move back."
    )
    back = serializers.BooleanField(source="is_back", help_text="Whether sessions return to where they came from.")
    to_model = serializers.CharField(
        allow_null=True, help_text="Model to move to; null if each session keeps its model."
    )
    reason = serializers.CharField(help_text="Reason; empty for deleting.")
    actor = serializers.CharField(help_text="User who started it.")
    detail = serializers.CharField(help_text="Error message if it failed, else empty.")
    started_at = serializers.IntegerField(help_text="Start time in Unix seconds.")
    updated_at = serializers.IntegerField(help_text="Time of the last heartbeat, in Unix seconds.")
    ended_at = serializers.IntegerField(
        allow_null=True, help_text="When it was stopped or finished, in Unix seconds; null: it runs."
    )
    started_at_iso = UnixTimeField(source="started_at", help_text="`started_at` in UTC.")
    updated_at_iso = UnixTimeField(source="updated_at", help_text="`updated_at` in UTC.")
    ended_at_iso = UnixTimeField(source="ended_at", allow_null=True, help_text="`ended_at` in UTC, or null.")


class OperationsSerializer(Serializer):
    """The most recent operations."""

    results = OperationSerializer(many=True, help_text="At most 100, the most recently started first.")


def operation_path(request: Request, key: str) -> str:
    """Return the absolute path of an operation."""
    return f"{sessions_path(request)}operations/{key}/"
