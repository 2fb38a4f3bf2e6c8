"""Bulk operations that outlive the request that started them, and its worker."""
