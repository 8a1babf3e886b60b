"""Streams: one feed on its way to one listener, rows down and credit up."""
