"""Replications that the service runs: kept in the store, run by one of its processes, and taken up again after a
restart.

What is replicated is a `Task`; `Ledger` keeps tasks in the store, `Crew` has them run, and `Tasks` is what the
service's faces ask.
"""
