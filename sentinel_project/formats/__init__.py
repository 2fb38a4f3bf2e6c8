"""Formats of dates and times, which Django reads for each language."""
