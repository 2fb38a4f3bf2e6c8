"""The routes of the admin API; include them where you like, under one prefix."""

from __future__ import annotations

from django.urls import path, re_path

from sessions_sticky.api import bulk, events, views

app_name = "sessions_sticky"

_ID = r"(?P<conversation_id>(?s:.*))/\Z"
"""Any characters, slashes too: servers decode `%2F` before Django sees the path."""
_OPERATION = r"^operations/(?P<operation_key>[0-9a-f]{32})/"

urlpatterns = [
    path("", views.SessionsView.as_view(), name="sessions"),
    path("stats/", views.StatsView.as_view(), name="stats"),
    path("delete/", bulk.DeleteAllView.as_view(), name="delete_all"),
    path("rebind/", bulk.RebindAllView.as_view(), name="rebind_all"),
    path("events/", events.EventsView.as_view(), name="events"),
    path("operations/", bulk.OperationsView.as_view(), name="operations"),
    re_path(rf"{_OPERATION}\Z", bulk.OperationView.as_view(), name="operation"),
    re_path(rf"{_OPERATION}stop/\Z", bulk.StopView.as_view(), name="operation_stop"),
    re_path(rf"{_OPERATION}resume/\Z", bulk.ResumeView.as_view(), name="operation_resume"),
    re_path(rf"^id/{_ID}", views.SessionView.as_view(), name="session"),
    re_path(rf"^history/{_ID}", views.HistoryView.as_view(), name="session_history"),
    re_path(rf"^touch/{_ID}", views.TouchView.as_view(), name="session_touch"),
    re_path(rf"^rebind/{_ID}", views.RebindView.as_view(), name="session_rebind"),
    re_path("^", views.UnknownPathView.as_view()),
]
