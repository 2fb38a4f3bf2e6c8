"""The forms of the pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.validators import RegexValidator
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from sessions_sticky.admin.filters import conditions_in
from sessions_sticky.conf import check_target, conf
from sessions_sticky.exceptions import UnknownProvider
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import MAX_NAME_LENGTH, MAX_REASON_LENGTH
from sessions_sticky.setting_values import similar_name

no_control_characters = RegexValidator(r"\A[^\x00-\x1f\x7f-\x9f]*\Z", _("Control characters are not allowed."))


class NameField(forms.CharField):
    """One line of text for a name of a session; surrounding white space is stripped."""

    default_validators = [no_control_characters]

    def __init__(self, *, max_length: int = MAX_NAME_LENGTH, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, **kwargs)


class PageForm(forms.Form):
    """A form without colons behind its labels."""

    def __init__(self, data: QueryDict | None = None, **kwargs: Any) -> None:
        super().__init__(data, label_suffix="", **kwargs)


KEEP_MODEL = _("Leave empty to keep the current model.")
TIME_HELP = _("A time such as 2026-11-26T03:00Z, or how long ago, such as 12h.")


def named(label: Any, names: str = "", **kwargs: Any) -> NameField:
    """Return a field for a name; `names` is the id of the list of suggestions."""
    attrs = {"autocomplete": "off"} | ({"list": names} if names else {})
    return NameField(label=label, widget=forms.TextInput(attrs=attrs), **kwargs)


class MoveForm(PageForm):
    """The target and reason of a move. Its fields have a prefix because the filters are posted too."""

    prefix = "to"

    provider = named(_("Provider"), "sticky-providers")
    model = named(_("Model"), "sticky-models", required=False, help_text=KEEP_MODEL)
    reason = NameField(label=_("Reason"), max_length=MAX_REASON_LENGTH, help_text=_("Shown in the history."))

    def clean_provider(self) -> str:
        """Refuse a provider that the project does not have."""
        provider: str = self.cleaned_data["provider"]
        try:
            check_target(provider)
        except UnknownProvider as exc:
            known = sorted(conf.providers or ())
            text = _("Unknown provider “%(provider)s”: must be one of %(known)s.")
            errors = [text % {"provider": provider, "known": ", ".join(known)}]
            if similar := similar_name(provider, known):
                errors.append(_("Did you mean “%s”?") % similar)
            raise forms.ValidationError(errors) from exc
        return provider

    @classmethod
    def is_in(cls, posted: QueryDict) -> bool:
        """Return whether the form was posted."""
        return f"{cls.prefix}-provider" in posted

    @property
    def move(self) -> Move:
        """The move of the validated form."""
        data = self.cleaned_data
        return Move(data["provider"], data["model"] or None, data["reason"])


class ReasonForm(PageForm):
    """The reason of a move back."""

    reason = NameField(
        label=_("Reason"), initial=_("move back"), max_length=MAX_REASON_LENGTH, help_text=_("Shown in the history.")
    )


class BulkForm(PageForm):
    """The filters of a bulk change; times are texts such as `12h` or `2026-11-26T03:00Z`."""

    provider = named(_("Provider"), "sticky-providers", required=False)
    model = named(_("Model"), "sticky-models", required=False)
    owner = named(_("Owner"), required=False)
    idle_for = NameField(label=_("Idle for at least"), required=False, help_text=_("Such as 30m, 12h or 2d."))
    created_before = NameField(label=_("Created before"), required=False, help_text=TIME_HELP)
    moved_from = named(_("Last moved from"), "sticky-providers", required=False)
    moved_since = NameField(label=_("Last moved since"), required=False, help_text=TIME_HELP)

    def clean(self) -> dict[str, Any]:
        """Parse the conditions, also the operation, which only links to the page have."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for name in (*self.fields, "operation"):
            try:
                conditions_in({name: self.data.get(name, "")})
            except ValueError as exc:
                self.add_error(name if name in self.fields else None, str(exc))
        return data
