"""The forms of the pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.validators import RegexValidator
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from sessions_sticky.conf import check_target
from sessions_sticky.exceptions import UnknownProvider
from sessions_sticky.queries.bulk import Move

MAX_NAME_LENGTH = 256
MAX_REASON_LENGTH = 500

no_control_characters = RegexValidator(r"\A[^\x00-\x1f\x7f-\x9f]*\Z", _("Control characters are not allowed."))


class NameField(forms.CharField):
    """One line of text for a name of a session; surrounding white space is stripped."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=kwargs.pop("max_length", MAX_NAME_LENGTH), **kwargs)
        self.validators.append(no_control_characters)


class MoveForm(forms.Form):
    """The target and reason of a move. Its fields have a prefix because the filters are posted too."""

    prefix = "to"

    def __init__(self, data: QueryDict | None = None) -> None:
        super().__init__(data, label_suffix="")

    provider = NameField(
        label=_("Provider"),
        help_text=_("The provider to move to."),
        widget=forms.TextInput(attrs={"list": "sticky-providers", "autocomplete": "off"}),
    )
    model = NameField(
        label=_("Model"),
        required=False,
        help_text=_("Leave empty to keep the current model."),
        widget=forms.TextInput(attrs={"list": "sticky-models", "autocomplete": "off"}),
    )
    reason = NameField(label=_("Reason"), max_length=MAX_REASON_LENGTH, help_text=_("For the history."))

    def clean_provider(self) -> str:
        """Refuse a provider that the project does not have."""
        provider: str = self.cleaned_data["provider"]
        try:
            check_target(provider)
        except UnknownProvider as exc:
            raise forms.ValidationError(str(exc)) from exc
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
