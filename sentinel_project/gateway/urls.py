"""The URLs of the chat API. Everything below `v1/` goes the short way: see handler.py."""

from __future__ import annotations

from django.urls import path, re_path

from sentinel_project.gateway import healthchecks, views

urlpatterns = [
    path("v1/chat/completions", views.chat_completions),
    path("v1/models", views.models),
    path("v1/models/<path:name>", views.model),
    re_path(r"^v1/", views.unknown),
    path("healthz", healthchecks.healthz),
    path("readyz", healthchecks.readyz),
    path("metrics", healthchecks.prometheus),
]
