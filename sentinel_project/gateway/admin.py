"""API keys in Django admin: made there or by `manage.py createkey`, shown once, listed with their last use, revoked."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from sentinel_project.gateway import provider_panel
from sentinel_project.gateway.models import ApiKey, ApiKeyQuerySet, is_owner
from sessions_sticky.admin.registry import register_panel, register_routes

TEMPLATES = "admin/gateway/apikey/"

register_panel(provider_panel.banner_panel)
register_panel(provider_panel.panel)
register_routes(provider_panel.routes)


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Asks for the owner of a new key."""

    class Meta:
        model = ApiKey
        fields = ["owner"]

    def clean_owner(self) -> str:
        """Refuse what `createkey` refuses."""
        owner: str = self.cleaned_data["owner"]
        if not is_owner(owner):
            raise forms.ValidationError(gettext("Enter 1 to 256 printable characters."))
        return owner


class StateFilter(admin.SimpleListFilter):
    """Keys that work, and revoked ones."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("live", _("Working")), ("revoked", _("Revoked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        """Choose."""
        return queryset if self.value() is None else queryset.filter(revoked_at__isnull=self.value() == "live")


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Keys are created, viewed and revoked, but never edited."""

    form = ApiKeyForm
    list_display = ["hint", "owner", "created_at", "last_use", "revoked_at"]
    list_filter = [StateFilter]
    search_fields = ["owner", "hint"]
    ordering = ["-created_at", "-pk"]
    actions = ["revoke"]
    add_form_template = f"{TEMPLATES}add.html"

    @admin.display(description=_("last use"), ordering="last_used_at")
    def last_use(self, key: ApiKey) -> Any:
        """Show when a key was last used."""
        return key.last_used_at or gettext("never")

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Ask for the owner of a new key, show all there is of any other."""
        return self.list_display if obj else ["owner"]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Let nothing be edited."""
        return self.list_display if obj else []

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Tell whether the user may revoke keys; none may be edited."""
        return obj is None and super().has_change_permission(request)

    def get_urls(self) -> list[URLPattern]:
        """Add the page that revokes one key."""
        view = self.admin_site.admin_view(self.revoke_view)
        return [path("<int:pk>/revoke/", view, name="gateway_apikey_revoke"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """List keys."""
        return super().changelist_view(request, {"title": gettext("API keys"), **(extra_context or {})})

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show one key, with a button for those who may revoke it."""
        context = {"may_revoke": self.has_change_permission(request)}
        return super().change_view(request, object_id, extra_context=context)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Make the key."""
        obj.secret = obj.draw()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """Show the key, in this answer and nowhere else: a redirect would have to keep it somewhere."""
        return self._page(request, "made.html", gettext("A new API key"), obj, secret=obj.secret)  # type: ignore[attr-defined]

    def revoke_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask, then revoke one key."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        key = ApiKey.objects.filter(pk=pk).first()
        if key is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, str(pk))  # type: ignore[attr-defined,no-any-return]
        if request.method != "POST":
            return self._page(request, "revoke.html", gettext("Revoke API key"), key)
        self.revoke(request, ApiKey.objects.filter(pk=pk))
        return HttpResponseRedirect(reverse("admin:gateway_apikey_change", args=[pk], current_app=self.admin_site.name))

    @admin.action(description=_("Revoke selected API keys"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: ApiKeyQuerySet) -> None:
        """Revoke the selected keys."""
        for key in queryset.filter(revoked_at=None):
            self.log_change(request, key, "Revoked.")
        count = queryset.revoke()
        text = ngettext("%d API key was revoked.", "%d API keys were revoked.", count) % count
        self.message_user(request, text, messages.SUCCESS)

    def _page(self, request: HttpRequest, name: str, title: str, key: ApiKey, **context: Any) -> TemplateResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "original": key}
        return TemplateResponse(request, f"{TEMPLATES}{name}", {**shared, **context})
