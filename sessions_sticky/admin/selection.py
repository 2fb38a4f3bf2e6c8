"""The sessions that an operator selected: displayed ones, or all that match the filters."""

from __future__ import annotations

from typing import NamedTuple

from django.core.exceptions import BadRequest
from django.http import QueryDict

from sessions_sticky import keys
from sessions_sticky.admin import registry
from sessions_sticky.admin.filters import (
    Count,
    condition_fields,
    conditions_in,
    count_of,
    fields_of,
    filters_in,
    query_of,
)
from sessions_sticky.exceptions import InvalidConversationId, InvalidSession
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import jobs
from sessions_sticky.manager import sessions
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.session import Session

MAX_NOTES = 5
"""Maximum number of notes on the target of a move."""


class Chosen(NamedTuple):
    """A selection; `cursor` is that of its page.

    With `all_matching` the `bindings` are ignored. `on_detail`: whether it was made on the page of one session.
    """

    bindings: list[Session]
    all_matching: bool
    filters: Filters
    cursor: str
    on_detail: bool

    @classmethod
    def read(cls, posted: QueryDict) -> Chosen:
        """Parse the form of the list or of a confirmation page."""
        all_matching = bool(posted.get("all"))
        bindings = [] if all_matching else [_binding(text) for text in posted.getlist("selected")]
        cursor, on_detail = posted.get("cursor", ""), bool(posted.get("on_detail"))
        try:
            filters = conditions_in(posted, filters_in(posted)) if all_matching else filters_in(posted)
        except ValueError as exc:
            raise BadRequest(str(exc)) from exc
        return cls(bindings, all_matching, filters, cursor, on_detail)

    def __bool__(self) -> bool:
        return self.all_matching or bool(self.bindings)

    @property
    def everything(self) -> bool:
        """Whether all sessions are selected, without a filter."""
        return self.all_matching and self.filters == Filters()

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The form fields from which `read` restores the selection."""
        fields = [("selected", binding.to_json().decode()) for binding in self.bindings]
        flags = {"all": self.all_matching, "on_detail": self.on_detail, "cursor": self.cursor}
        fields += [(name, "1" if value is True else str(value)) for name, value in flags.items() if value]
        return fields + list(fields_of(self.filters).items())

    @property
    def condition_fields(self) -> dict[str, str]:
        """The filters that the index cannot answer, as text."""
        return condition_fields(self.filters)

    @property
    def query(self) -> str:
        """The query of the page of the selection."""
        return query_of(self.filters, cursor=self.cursor)

    def plan(self, move: Move | None = None) -> Plan:
        """Return the plan of a job for all matches."""
        return Plan(self.filters, move, self.everything)

    def count_sessions(self, move: Move | None = None) -> Count:
        """Count the sessions to change."""
        if not self.all_matching:
            return Count(len(self.bindings), exact=True)
        if not self.filters.conditions and not (counted := count_of(self.filters)).exact:
            return counted  # an exact one would take long
        return Count(jobs.count(self.plan(move)), exact=True)


def target_notes(filters: Filters, move: Move) -> list[str]:
    """Return why the target of a move serves no requests for the models of the sessions now, as the project says."""
    if model := move.model or filters.model:
        models = {model}
    else:
        routes = [route for route in sessions.stats().routes if route.sessions]
        models = {route.model for route in routes if filters.provider in (None, route.provider)}
    notes = [note for model in sorted(models) for note in registry.provider_notes(move.provider or "", model)]
    return list(dict.fromkeys(notes))[:MAX_NOTES]


def _binding(text: str) -> Session:
    try:
        session = Session.from_json(text.encode(errors="replace"))
        keys.check(session.id)
    except (InvalidSession, InvalidConversationId) as exc:
        raise BadRequest(str(exc)) from exc
    return session
