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
from sessions_sticky.api.views import (
    HistoryView,
    NoSlashView,
    RebindView,
    SessionsView,
    SessionView,
    StatsView,
    TouchView,
)

app_name = "sessions_sticky"

_ANYTHING = r"^(?P<id>(?s:.*))"
_OPERATION = r"^operations/(?P<key>[0-9a-f]{32})"

urlpatterns = [
    path("", SessionsView.as_view(), name="sessions"),
    path("stats/", StatsView.as_view(), {"id": "stats"}, name="stats"),
    path("delete/", DeleteAllView.as_view(), {"id": "delete"}, name="delete_all"),
    path("rebind/", RebindAllView.as_view(), {"id": "rebind"}, name="rebind_all"),
    path("operations/", OperationsView.as_view(), {"id": "operations"}, name="operations"),
    re_path(rf"{_OPERATION}/\Z", OperationView.as_view(), name="operation"),
    re_path(rf"{_OPERATION}/stop/\Z", StopView.as_view(), name="operation_stop"),
    re_path(rf"{_OPERATION}/resume/\Z", ResumeView.as_view(), name="operation_resume"),
    re_path(rf"{_ANYTHING}/history/\Z", HistoryView.as_view(), name="session_history"),
    re_path(rf"{_ANYTHING}/touch/\Z", TouchView.as_view(), name="session_touch"),
    re_path(rf"{_ANYTHING}/rebind/\Z", RebindView.as_view(), name="session_rebind"),
    re_path(rf"{_ANYTHING}/\Z", SessionView.as_view(), name="session"),
    re_path(_ANYTHING, NoSlashView.as_view()),
]
