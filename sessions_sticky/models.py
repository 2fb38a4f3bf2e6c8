"""One model without a table: what Django's permissions, admin and LogEntry hang on."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from sessions_sticky.keys import MAX_CONVERSATION_ID_LENGTH


class Session(models.Model):
    """Stands for the sessions in Redis; gives the permissions `view_`, `add_`, `change_` and `delete_session`.

    Never queried: there is no table. The record itself is `sessions_sticky.Session`.
    """

    id = models.CharField(_("conversation id"), max_length=MAX_CONVERSATION_ID_LENGTH, primary_key=True)

    class Meta:
        managed = False
        verbose_name = _("session")
        verbose_name_plural = _("sessions")

    def __str__(self) -> str:
        return self.id
