"""What drf-spectacular cannot read from the views: every answer they give. Loaded only where it is installed.

The views know nothing of it. Methods that a view inherits mean another resource, which has an entry of its own.
"""

from sessions_sticky.api.openapi import bulk, sessions

__all__ = ["bulk", "sessions"]
