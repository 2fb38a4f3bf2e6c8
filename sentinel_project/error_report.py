"""Hide secrets in Django's error pages (with DEBUG=1) and error mails."""

from __future__ import annotations

import re

from django.views.debug import SafeExceptionReporterFilter


class ReportFilter(SafeExceptionReporterFilter):
    """Also hide URLs, because those of stores and databases contain passwords."""

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|URL|LOCATION", re.IGNORECASE)
