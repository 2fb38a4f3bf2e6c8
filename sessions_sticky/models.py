"""One model without a table: what Django's permissions, admin and LogEntry hang on."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from sessions_sticky.keys import MAX_CONVERSATION_ID_LENGTH


class NoRows(models.Manager["Session"]):
    """Finds nothing without a query: there is no table."""

    def get_queryset(self) -> models.QuerySet[Session]:
        """Return the empty queryset."""
        return super().get_queryset().none()


class Session(models.Model):
    """Stands for the sessions in Redis; gives the permissions `view_`, `add_`, `change_` and `delete_session`.

    Has no table and no rows; the record itself is `sessions_sticky.Session`. Both managers are empty, so that what
    reads all models of a project (`dumpdata`) does not query a table that does not exist.
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
