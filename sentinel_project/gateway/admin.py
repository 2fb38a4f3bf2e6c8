"""API keys in Django admin: created there or by `manage.py createkey`, shown once, limited, paused and revoked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import localize, number_format
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from sentinel_project.gateway import owner_pages, provider_pages, provider_panel
from sentinel_project.gateway.models import ApiKey, ApiKeyQuerySet, is_owner
from sessions_sticky.admin.registry import register_link, register_pages, register_panel, register_provider_note

TEMPLATES = "admin/gateway/apikey/"
STATES = {"live": _("Working"), "paused": _("Paused"), "revoked": _("Revoked")}
LEVELS = {"live": "ok", "paused": "warning", "revoked": "error"}
SHOWN = ("hint", "owner", "state", "created_at", "last_use")

register_panel(provider_panel.banner_panel)
register_panel(provider_panel.panel)
register_provider_note(provider_panel.note)
register_link(_("Reference of the admin API"), "api-docs")
register_pages(provider_pages.SECTION, provider_pages.urls)
register_pages(owner_pages.SECTION, owner_pages.urls)


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Asks for the limits of a key, and for the owner of a new one."""

    class Meta:
        model = ApiKey
        fields = ["owner", *ApiKey.LIMITS]

    def clean_owner(self) -> str:
        """Refuse what `createkey` refuses."""
        owner: str = self.cleaned_data["owner"]
        if not is_owner(owner):
            raise forms.ValidationError(gettext("Enter 1 to 256 printable characters."))
        return owner


class StateFilter(admin.SimpleListFilter):
    """Working, paused and revoked keys."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return list(STATES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        """Filter by the state."""
        state = self.value()
        if state is None:
            return queryset
        if state == "revoked":
            return queryset.exclude(revoked_at=None)
        return queryset.filter(revoked_at=None, paused_at__isnull=state == "live")


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Creates, limits, pauses and revokes keys; everything else about them is read-only."""

    class Media:
        css = {"all": ["gateway/api_key.css"]}

    form = ApiKeyForm
    list_display = ["hint", "owner", "state", "limits", "last_use", "created_at"]
    list_filter = [StateFilter]
    search_fields = ["owner", "hint"]
    ordering = ["-created_at", "-pk"]
    actions = ["pause", "resume", "revoke"]
    add_form_template = f"{TEMPLATES}add.html"

    @admin.display(description=_("last use"), ordering="last_used_at")
    def last_use(self, key: ApiKey) -> Any:
        """Show when a key was last used."""
        return localize(localtime(key.last_used_at)) if key.last_used_at else gettext("never")

    @admin.display(description=_("state"), ordering="revoked_at")
    def state(self, key: ApiKey) -> str:
        """Show whether a key works."""
        badge = '<span class="api-key-state api-key-{}">{}</span>'
        return format_html(badge, LEVELS[key.state], STATES[key.state])

    @admin.display(description=_("limits"))
    def limits(self, key: ApiKey) -> str:
        """Show the limits in one column."""
        units = {
            "requests_per_minute": _("%s requests/min"),
            "tokens_per_minute": _("%s tokens/min"),
            "requests_in_flight": _("%s in flight"),
        }
        given = {name: limit for name in units if (limit := getattr(key, name)) is not None}
        return (
            ", ".join(units[name] % number_format(limit, force_grouping=True) for name, limit in given.items()) or "-"
        )

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Return the owner and the limits for a new key, all fields for an existing one."""
        if obj is None:
            return ["owner", *ApiKey.LIMITS]
        return [*SHOWN, *(name for name in ("paused_at", "revoked_at") if getattr(obj, name)), *ApiKey.LIMITS]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Let only the limits be edited."""
        return [*SHOWN, "paused_at", "revoked_at"] if obj else []

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Return whether the user may limit, pause and revoke keys; a revoked one does not change."""
        return super().has_change_permission(request) and (obj is None or obj.revoked_at is None)

    def get_urls(self) -> list[URLPattern]:
        """Add the pages that revoke, pause and resume one key."""
        wrap = self.admin_site.admin_view
        return [
            path("<int:pk>/revoke/", wrap(self.revoke_view), name="gateway_apikey_revoke"),
            path("<int:pk>/pause/", wrap(self.pause_view), name="gateway_apikey_pause"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """List keys."""
        return super().changelist_view(request, {"title": gettext("API keys"), **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Generate a new key; of an existing one save only the limits, because it may be revoked at the same time."""
        if change:
            obj.save(update_fields=[*ApiKey.LIMITS, "changed_at"])
            return
        obj.secret = obj.generate()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """Show the key in this response only: for a redirect it would have to be stored."""
        return self._page(request, "made.html", gettext("A new API key"), obj, secret=obj.secret)  # type: ignore[attr-defined]

    def revoke_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask for confirmation, then revoke one key."""
        return self._change_one(request, pk, self.revoke, "revoke.html", gettext("Revoke API key"))

    def pause_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask for confirmation, then pause one key, or resume a paused one."""
        is_paused = ApiKey.objects.filter(pk=pk).exclude(paused_at=None).exists()
        title = gettext("Resume API key") if is_paused else gettext("Pause API key")
        return self._change_one(request, pk, self.resume if is_paused else self.pause, "pause.html", title)

    @admin.action(description=_("Pause selected API keys"), permissions=["change"])
    def pause(self, request: HttpRequest, queryset: ApiKeyQuerySet) -> None:
        """Pause the selected keys."""
        self._log(request, queryset.filter(revoked_at=None, paused_at=None), gettext("Paused."))
        count = queryset.pause()
        text = ngettext("%d API key was paused.", "%d API keys were paused.", count) % count
        self.message_user(request, text, messages.SUCCESS)

    @admin.action(description=_("Resume selected API keys"), permissions=["change"])
    def resume(self, request: HttpRequest, queryset: ApiKeyQuerySet) -> None:
        """Let the selected keys work again."""
        self._log(request, queryset.filter(revoked_at=None).exclude(paused_at=None), gettext("Resumed."))
        count = queryset.resume()
        text = ngettext("%d API key works again.", "%d API keys work again.", count) % count
        self.message_user(request, text, messages.SUCCESS)

    @admin.action(description=_("Revoke selected API keys"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: ApiKeyQuerySet) -> None:
        """Revoke the selected keys."""
        self._log(request, queryset.filter(revoked_at=None), gettext("Revoked."))
        count = queryset.revoke()
        text = ngettext("%d API key was revoked.", "%d API keys were revoked.", count) % count
        self.message_user(request, text, messages.SUCCESS)

    def _log(self, request: HttpRequest, queryset: ApiKeyQuerySet, change: str) -> None:
        for key in queryset:
            self.log_change(request, key, change)

    def _change_one(
        self, request: HttpRequest, pk: int, change: Callable[..., None], template: str, title: str
    ) -> HttpResponse:
        """Ask for confirmation on a page, then change one key."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        key = ApiKey.objects.filter(pk=pk).first()
        if key is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, str(pk))  # type: ignore[attr-defined,no-any-return]
        if request.method != "POST":
            return self._page(request, template, title, key)
        change(request, ApiKey.objects.filter(pk=pk))
        return HttpResponseRedirect(reverse("admin:gateway_apikey_change", args=[pk], current_app=self.admin_site.name))

    def _page(self, request: HttpRequest, name: str, title: str, key: ApiKey, **context: Any) -> TemplateResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "original": key}
        return TemplateResponse(request, f"{TEMPLATES}{name}", {**shared, **context})
