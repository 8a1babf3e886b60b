"""Errors that only replication knows; what a peer refuses comes as the error that it is."""

from __future__ import annotations

from feeds.errors import SpileError


class BadPeer(SpileError):
    """The other side does not answer as a peer does."""

    code = "bad_peer"
    hint = "Check the address: another program may be listening there, or something stands in between."


class PeerChanged(SpileError):
    """The barrel was dropped and created again, or restored, while it was replicated to."""

    code = "peer_changed"
    hint = "Nothing is to be done: the replication begins anew at what both sides still know."
    retryable = True


class Unfit(SpileError):
    """What the peer sent is not what was asked for."""

    code = "unfit"
    hint = "Look at this document at the source: its peer tells something else of it than its log does."
