"""The routes of the admin API; include them where you like, under one prefix."""

from __future__ import annotations

from django.urls import path, re_path

from sessions_sticky.api.views import NoSlashView, RebindView, SessionsView, SessionView, TouchView

app_name = "sessions_sticky"

_ANYTHING = r"^(?P<path>(?s:.*))"

urlpatterns = [
    path("", SessionsView.as_view(), name="sessions"),
    re_path(rf"{_ANYTHING}/touch/\Z", TouchView.as_view()),
    re_path(rf"{_ANYTHING}/rebind/\Z", RebindView.as_view()),
    re_path(rf"{_ANYTHING}/\Z", SessionView.as_view()),
    re_path(_ANYTHING, NoSlashView.as_view()),
]
