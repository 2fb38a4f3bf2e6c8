"""API keys. The key itself is never stored, only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

KEY_PREFIX = "sk-sentinel-"
MAX_OWNER_LENGTH = 256
MAX_LIMIT = 2**31 - 1
"""The largest number that all databases store."""


def digest(key: str) -> str:
    """Return the stored digest of a key. One SHA-256 is enough: a key is 256 random bits, not a password.

    Keys are looked up by it. The time of the look-up may reveal how much of a digest matches, which is harmless: a
    caller cannot choose the digest of a guess.
    """
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def hint(key: str) -> str:
    """Return the public prefix of a key."""
    return f"{key[: len(KEY_PREFIX) + 4]}..."


def is_owner(text: str) -> bool:
    """Return whether an owner is valid: 1 to 256 printable characters (others break terminals)."""
    return 1 <= len(text) <= MAX_OWNER_LENGTH and text.isprintable()


class ApiKeyManager(models.Manager["ApiKey"]):
    """Creates and looks up keys."""

    def issue(self, owner: str, **limits: int | None) -> str:
        """Create and return a key for an owner, with some of `LIMITS`; it cannot be read again."""
        made = self.model(owner=owner, **limits)
        key = made.generate()
        made.save(force_insert=True)
        return key

    def is_live(self, key: str) -> bool:
        """Return whether a key exists and is not revoked; it may be paused."""
        return self.filter(digest=digest(key), revoked_at=None).exists()


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """A set of keys."""

    def of(self, *owners: str) -> ApiKeyQuerySet:
        """Return the keys of some owners. Invalid ones never reach the database, which may refuse their text."""
        return self.filter(owner__in=[owner for owner in owners if is_owner(owner)])

    def revoke(self) -> int:
        """Revoke those that are not revoked yet; returns how many. They stop working within 30 seconds."""
        now = timezone.now()
        return self.filter(revoked_at=None).update(revoked_at=now, changed_at=now)

    def pause(self) -> int:
        """Pause those that work; returns how many. Requests with them are refused within some seconds."""
        now = timezone.now()
        return self.filter(revoked_at=None, paused_at=None).update(paused_at=now, changed_at=now)

    def resume(self) -> int:
        """Let paused keys work again; returns how many."""
        paused = self.filter(revoked_at=None).exclude(paused_at=None)
        return paused.update(paused_at=None, changed_at=timezone.now())

    def limit(self, **limits: int | None) -> int:
        """Set some of `LIMITS` of those that are not revoked; None lifts a limit. Returns how many."""
        return self.filter(revoked_at=None).update(**limits, changed_at=timezone.now())


def _limit(name: Any, help_text: Any) -> models.PositiveIntegerField[int | None, int | None]:
    validators = [MinValueValidator(1), MaxValueValidator(MAX_LIMIT)]
    return models.PositiveIntegerField(name, null=True, blank=True, validators=validators, help_text=help_text)


class ApiKey(models.Model):
    """A key with which an owner calls the chat API.

    `revoked_at` and `paused_at` are None while it works; `last_used_at` is known to the minute, and None when it was
    never used. None means no limit.
    """

    LIMITS = ("requests_per_minute", "tokens_per_minute", "requests_in_flight")

    owner = models.CharField(
        _("owner"), max_length=MAX_OWNER_LENGTH, help_text=_("The owner whose conversations this key can use.")
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(_("key"), max_length=32, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True, db_index=True)
    last_used_at = models.DateTimeField(_("last use"), null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)
    paused_at = models.DateTimeField(_("paused"), null=True, blank=True, editable=False)
    requests_per_minute = _limit(_("requests per minute"), _("Leave empty for no limit."))
    tokens_per_minute = _limit(
        _("tokens per minute"), _("Input and output, counted when an answer ends. Leave empty for no limit.")
    )
    requests_in_flight = _limit(_("requests in flight"), _("Answered at the same time. Leave empty for no limit."))

    objects = ApiKeyManager.from_queryset(ApiKeyQuerySet)()

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")

    def __str__(self) -> str:
        return f"{self.hint} ({self.owner})"

    @property
    def state(self) -> str:
        """`live`, `paused` or `revoked`."""
        return "revoked" if self.revoked_at else "paused" if self.paused_at else "live"

    def generate(self) -> str:
        """Set a new key on an unsaved row, and return it."""
        key = f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"
        self.digest, self.hint = digest(key), hint(key)
        return key
