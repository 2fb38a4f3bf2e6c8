"""The URLs of the gateway. Everything below `ROOT` goes the short way: see handler.py."""

from __future__ import annotations

from django.urls import path, re_path

from sentinel_project.gateway import healthchecks, model_list, stored_objects
from sentinel_project.gateway.apis import APIS
from sentinel_project.gateway.apis.base import ROOT
from sentinel_project.gateway.endpoint import serve, unknown_path

urlpatterns = [
    *(path(api.route[1:], serve(api)) for api in APIS),
    *stored_objects.urlpatterns,
    path(f"{ROOT[1:]}/models", model_list.models),
    path(f"{ROOT[1:]}/models/<path:name>", model_list.model),
    re_path(rf"^{ROOT[1:]}(?:/|$)", unknown_path),
    path("healthz", healthchecks.healthz),
    path("readyz", healthchecks.readyz),
    path("metrics", healthchecks.prometheus),
]
