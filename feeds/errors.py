"""Every error that Spile tells a caller, as one tree.

A class's docstring is its default reason. `code` is stable and is what HTTP status, MQTT `rejected`
and exit codes are looked up by; those tables live with the server, not here.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SpileError(Exception):
    """Something was refused."""

    code: ClassVar[str] = "error"
    hint: str = "Read the reason; if it does not help, look into the service's log."
    retryable: ClassVar[bool] = False

    def __init__(self, reason: str | None = None, *, hint: str | None = None, **details: Any) -> None:
        self.reason = reason or (type(self).__doc__ or "").strip().splitlines()[0]
        if hint is not None:
            self.hint = hint
        self.details = details
        super().__init__(self.reason)

    def as_dict(self) -> dict[str, Any]:
        """The error as it travels: `{error, reason, hint}` and whatever details the raiser named."""
        return {"error": self.code, "reason": self.reason, "hint": self.hint, **self.details}


class BadRequest(SpileError):
    """The request cannot be understood."""

    code = "bad_request"
    hint = "Correct the request; sending it again unchanged will be refused again."


class Forbidden(SpileError):
    """This is not allowed for you."""

    code = "forbidden"
    hint = "Use an identity that may do this, or a topic or document of your own."


class Unauthorized(SpileError):
    """Who you are is not known here."""

    code = "unauthorized"
    hint = "Send a valid user and password or token."


class NotFound(SpileError):
    """There is no such thing here."""

    code = "not_found"
    hint = "Check the name; a document that was never written and one that was deleted are told apart."


class Missing(NotFound):
    """The document was never written here."""

    hint = "Check the id, or write the document first."

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "missing": True}


class Deleted(NotFound):
    """The document was deleted."""

    hint = "Write it again without _rev to bring it back; its older revisions are kept for a while."

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "deleted": True}


class Exists(SpileError):
    """The name is taken."""

    code = "exists"
    hint = "Use what is there, or drop it first."


class Conflict(SpileError):
    """The document has changed since the revision you sent."""

    code = "conflict"
    hint = "Read the document again, apply your change to its current _rev, and send that."


class PreconditionFailed(SpileError):
    """The condition of the request does not hold."""

    code = "precondition_failed"
    hint = "Read the present ETag, and send the request with that."


class MissingStub(PreconditionFailed):
    """An attachment names a content that is not here."""

    code = "missing_stub"
    hint = "Send the content itself: as data, or uploaded."


class TokenReused(SpileError):
    """This token was already used for another request."""

    code = "token_reused"
    hint = "Make a new token for every new request; repeat one only with the very same body."


class TooLarge(SpileError):
    """This is larger than the limit."""

    code = "too_large"
    hint = "Send less at a time, or ask the operator to raise the limit."


class Overloaded(SpileError):
    """There is more work waiting than can be done in time."""

    code = "overloaded"
    hint = "Wait a moment, then send it again."
    retryable = True


class RateLimited(SpileError):
    """You have used up your request units."""

    code = "rate_limited"
    hint = "Send it again after `retry_after` seconds; ask the operator for a higher rate if you need one."
    retryable = True


class EpochChanged(SpileError):
    """The position belongs to another life of the barrel, or lies outside of its log."""

    code = "epoch_changed"
    hint = "Read everything again from `first`, and drop what you hold that is not told."


class Unavailable(SpileError):
    """The store cannot do this now."""

    code = "unavailable"
    hint = "Try again; if it stays, look at /health and the service's log."
    retryable = True


class StorageFull(Unavailable):
    """There is no space left to write to."""

    code = "storage_full"
    hint = "Free some space on the store's disk; nothing of this request was stored."


class StoreLocked(SpileError):
    """Another process holds this store."""

    code = "store_locked"
    hint = "Stop the other process, or speak to it over HTTP (--url)."


class NewerSchema(SpileError):
    """The store was written by a newer Spile."""

    code = "newer_schema"
    hint = "Upgrade Spile, or open a backup made by this version."


class Damaged(SpileError):
    """Stored data does not fit together."""

    code = "damaged"
    hint = "Run `spile check`; restore a backup if it cannot be repaired."


class AlreadyWritten(SpileError):
    """A byte of this range of a blob file was written already, and is never changed."""

    code = "written"
    hint = "Write elsewhere (`append` finds the place), or send the very bytes that are there."


class Trimmed(SpileError):
    """A byte of this range of a blob file was given up, and never comes back."""

    code = "trimmed"
    hint = "Write elsewhere (`append` finds the place); what was there is gone."


class NotWritten(SpileError):
    """A byte of this range of a blob file was never written."""

    code = "not_written"
    hint = "Read one of the `ranges` ([offset, size]) that are there."


class PartialRead(SpileError):
    """A blob file is shorter than what was written to it, or is gone."""

    code = "partial_read"
    hint = "Run `spile check`; store the content again, or put the file back from a backup."


class BadChecksum(SpileError):
    """Bytes do not have the checksum that belongs to them."""

    code = "bad_checksum"
    hint = "Send them again; if they were read here, the disk damaged them: run `spile check`, and store them again."


class BadEpoch(SpileError):
    """The blob files are in another epoch than the request."""

    code = "bad_epoch"
    hint = "Learn the present epoch, look whether the request still makes sense, and send it with that."


class Timeout(SpileError):
    """The answer did not come in time."""

    code = "timeout"
    hint = "Ask again; a write that carries a token may be repeated safely."
    retryable = True
