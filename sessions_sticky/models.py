"""A model without a table, for Django's permissions, admin and `LogEntry`."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from sessions_sticky.keys import MAX_CONVERSATION_ID_LENGTH


class NoRows(models.Manager["Session"]):
    """A manager without rows: there is no table."""

    def get_queryset(self) -> models.QuerySet[Session]:
        """Return the empty queryset."""
        return super().get_queryset().none()


class Session(models.Model):
    """Represents the sessions in Redis; defines the permissions `view_`, `add_`, `change_` and `delete_session`.

    The record is `sessions_sticky.Session`; this model has no table. Both managers are empty, so that commands that
    read all models (`dumpdata`) query no table.
    """

    id = models.CharField(_("conversation id"), max_length=MAX_CONVERSATION_ID_LENGTH, primary_key=True)

    objects = NoRows()

    class Meta:
        managed = False
        base_manager_name = "objects"
        verbose_name = _("session")
        verbose_name_plural = _("sessions")

    def __str__(self) -> str:
        return self.id
