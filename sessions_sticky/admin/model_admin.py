"""The `ModelAdmin` of sessions."""

from __future__ import annotations

from django.contrib.admin.utils import unquote
from django.http import HttpRequest
from django.urls import URLPattern, register_converter
from django.urls.converters import StringConverter
from django.utils.translation import gettext_lazy as _

from sessions_sticky.admin import actions, bulk, changelist, detail, events, help, job, move_all, overview, registry
from sessions_sticky.admin.base import PageAdmin
from sessions_sticky.admin.registry import Section
from sessions_sticky.jobs.job import KEY
from sessions_sticky.models import Session

QUOTED = {".": "_2E", "..": "_2E_2E"}
"""A prefix that Django's quoting never returns: it quotes `_` as `_5F`."""
UNQUOTED = {quoted: dots for dots, quoted in QUOTED.items()}


class QuotedId(StringConverter):
    """Decodes conversation ids in paths, which `django.contrib.admin.utils.quote` has made one segment.

    That leaves `.` and `..`, which browsers resolve away. They are quoted in the path, so that Django's own links
    (recent actions, history) work for them too.
    """

    def to_python(self, value: str) -> str:
        """Return the conversation id; it is not checked."""
        return UNQUOTED.get(value) or unquote(value)

    def to_url(self, value: str) -> str:
        """Return the segment for a quoted id."""
        return QUOTED.get(value, value)


class JobKey(StringConverter):
    """Matches keys of operations, which differ from all page names."""

    regex = KEY.pattern


register_converter(QuotedId, "quoted_id")
register_converter(JobKey, "job_key")


class SessionAdmin(PageAdmin):
    """Pages for sessions. There is no table: methods of `ModelAdmin` that query one are unreachable."""

    menu = (
        Section("changelist", _("Sessions")),
        Section("overview", _("Overview")),
        Section("move_all", _("Move all")),
        Section("bulk", _("Bulk changes")),
        Section("operations", _("Operations")),
        Section("events", _("Events")),
    )
    end_of_menu = (Section("help", _("Help")),)

    def get_urls(self) -> list[URLPattern]:
        """Return the URL patterns of the pages."""
        session = "<quoted_id:conversation_id>"
        return [
            self.path("", changelist.show, name="changelist"),
            self.path("search/", changelist.find, name="search"),
            self.path("overview/", overview.show, name="overview"),
            self.path("move-all/", move_all.show, name="move_all"),
            self.path("drain/", move_all.former, name="drain"),
            self.path("bulk/", bulk.show, name="bulk"),
            self.path("bulk/export/", bulk.export, name="bulk_export"),
            self.path("delete/", actions.delete, name="delete_selected"),
            self.path("move/", actions.move, name="move"),
            self.path("move-back/", actions.move_back, name="move_back"),
            self.path("operations/", events.operations, name="operations"),
            self.path("operations/<job_key:key>/", job.show, name="operation"),
            self.path("operations/<job_key:key>/stop/", job.stop, name="operation_stop"),
            self.path("operations/<job_key:key>/resume/", job.resume, name="operation_resume"),
            self.path("events/", events.show, name="events"),
            self.path("help/", help.show, name="help"),
            *(url for pages in registry.pages for url in pages.urls(self)),
            self.path(f"{session}/change/", detail.show, name="change"),
            self.path(f"{session}/touch/", detail.touch, name="touch"),
            self.path(f"{session}/history/", detail.changes, name="history"),
        ]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Session:
        """Return a model instance for any conversation id, without a query."""
        return Session(pk=object_id)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Deny: chats create sessions."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        """Return whether the user may view sessions; as in the API, no other permission implies it."""
        return bool(request.user.has_perm("sessions_sticky.view_session"))

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        """Return the permissions for Django admin's lists of models; none for users who may not view."""
        may_view = self.allows(request, "view")
        return {name: may_view and allowed for name, allowed in super().get_model_perms(request).items()}
