"""The URLs of the gateway."""

from __future__ import annotations

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.authtoken.models import TokenProxy

from sentinel_project.api_schema import SchemaView
from sentinel_project.gateway.healthchecks import front_page, start_page
from sentinel_project.gateway.keys_api import KeyDetail, KeyList
from sentinel_project.gateway.providers_api import ProviderDetail, ProviderList
from sentinel_project.security_headers import styled

# Its pages show every user's token, so a viewer could act as any user. Use `manage.py drf_create_token` instead.
admin.site.unregister(TokenProxy)
admin.site.site_header = admin.site.site_title = "Sentinel gateway"
admin.site.site_url = None  # it would lead back to the admin

urlpatterns = [
    path("", front_page),
    path("favicon.ico", RedirectView.as_view(url=static("gateway/favicon.svg"))),
    path("admin/", start_page),
    path("admin/all/", admin.site.admin_view(admin.site.index)),
    path("admin/", admin.site.urls),
    path("api/sessions/", include("sessions_sticky.api.urls")),
    path("api/providers/", ProviderList.as_view()),
    path("api/providers/<path:name>/", ProviderDetail.as_view()),
    path("api/keys/", KeyList.as_view()),
    path("api/keys/<int:pk>/", KeyDetail.as_view()),
    path("api/schema/", SchemaView.as_view(), name="schema"),
    # A separate script, because the policy forbids inline ones; its refusal of other methods has no template.
    path("api/docs/", require_safe(styled(SpectacularSwaggerSplitView.as_view())), name="api-docs"),
    path("", include("sentinel_project.gateway.urls")),
]

handler404 = "sentinel_project.gateway.endpoint.not_found"
