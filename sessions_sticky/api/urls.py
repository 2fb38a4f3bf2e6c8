"""The routes of the admin API; include them where you like, under one prefix."""

from __future__ import annotations

from django.urls import path, re_path

from sessions_sticky.api.bulk import (
    DeleteAllView,
    OperationsView,
    OperationView,
    RebindAllView,
    ResumeView,
    StopView,
)
from sessions_sticky.api.events import EventsView
from sessions_sticky.api.views import (
    HistoryView,
    RebindView,
    SessionsView,
    SessionView,
    StatsView,
    TouchView,
    UnknownPathView,
)

app_name = "sessions_sticky"

_ID = r"(?P<conversation_id>(?s:.*))/\Z"
"""Any characters, slashes too: servers decode `%2F` before Django sees the path."""
_OPERATION = r"^operations/(?P<operation_key>[0-9a-f]{32})/"

urlpatterns = [
    path("", SessionsView.as_view(), name="sessions"),
    path("stats/", StatsView.as_view(), name="stats"),
    path("delete/", DeleteAllView.as_view(), name="delete_all"),
    path("rebind/", RebindAllView.as_view(), name="rebind_all"),
    path("events/", EventsView.as_view(), name="events"),
    path("operations/", OperationsView.as_view(), name="operations"),
    re_path(rf"{_OPERATION}\Z", OperationView.as_view(), name="operation"),
    re_path(rf"{_OPERATION}stop/\Z", StopView.as_view(), name="operation_stop"),
    re_path(rf"{_OPERATION}resume/\Z", ResumeView.as_view(), name="operation_resume"),
    re_path(rf"^id/{_ID}", SessionView.as_view(), name="session"),
    re_path(rf"^history/{_ID}", HistoryView.as_view(), name="session_history"),
    re_path(rf"^touch/{_ID}", TouchView.as_view(), name="session_touch"),
    re_path(rf"^rebind/{_ID}", RebindView.as_view(), name="session_rebind"),
    re_path("^", UnknownPathView.as_view()),
]
