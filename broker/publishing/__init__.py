"""Telling a broker what was committed: which messages a change makes, and the position up to which it was told."""
