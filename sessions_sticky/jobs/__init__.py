"""Bulk operations that run by themselves: begun by a request, they outlive it and the worker that took it."""
