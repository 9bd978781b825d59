"""What can go wrong between a request and its answer, and what the client gets in response.

    RequestError                    a code, an HTTP status and a message, for one row or a whole request
      BadRequest 400                the client sent something it can correct
        Undecodable, UnsupportedImage, WrongShape, NotFinite, OutOfRange, NoRows, BadPrincipal
      Rejected 403                  the gate's word on a row
      BudgetSpent 403               the account's queries were too surprising together
      SolutionRefused 403           a proof of work that pays for nothing
        InvalidSolution, ExpiredSolution, SpentSolution
      TooManyRows, TooManyPixels 413
      TooMuchWork 413               the rows that must pay cost more together than one challenge may ask for
      UnsupportedContent 415
      WorkWanted 428                the row is answered for a proof of work
      RateLimited 429               enough rows were asked for now
      Internal 500                  a bug of ours
      StageFailed 503               a stage of the pipeline failed, closed
      StoreFailed 503               the store could not be asked what was spent or taken, or how an account stands
    LoadError                       the archive cannot serve: for the operator, never for a client
      KeyMissing, KeyUnusable

Messages to clients never repeat what a client sent and never name the stage, member or key at work.
Codes are part of the HTTP contract: they are compared by clients and counted by metrics.
"""

# ruff: noqa: N818 - the names read as events, which is what clients and metrics see

from __future__ import annotations

import traceback
from typing import ClassVar


class RequestError(Exception):
    """`row` is the index of the row at fault in its request; None where the request as a whole is. `unreadable`: it is
    the client's fault, was found by looking at what the client sent, and counts against its limits."""

    status: ClassVar[int]
    code: ClassVar[str]
    unreadable: ClassVar[bool] = False

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.row = row


class BadRequest(RequestError):
    status = 400
    unreadable = True


class Undecodable(BadRequest):
    """Not the format that the content type names."""

    code = "undecodable"


class UnsupportedImage(BadRequest):
    """An intact picture of a kind whose pixels would have to be guessed: transparent parts, several frames."""

    code = "unsupported_image"


class WrongShape(BadRequest):
    code = "wrong_shape"


class NotFinite(BadRequest):
    code = "not_finite"


class OutOfRange(BadRequest):
    code = "out_of_range"


class NoRows(BadRequest):
    code = "no_rows"


class BadPrincipal(BadRequest):
    """A principal's header that can be none of a gateway's."""

    code = "bad_principal"
    unreadable = False  # nothing was decoded, and it belongs to no client


class Rejected(RequestError):
    status = 403
    code = "rejected"


class BudgetSpent(RequestError):
    status = 403
    code = "budget_spent"


class SolutionRefused(RequestError):
    status = 403


class InvalidSolution(SolutionRefused):
    code = "solution_invalid"


class ExpiredSolution(SolutionRefused):
    code = "solution_expired"


class SpentSolution(SolutionRefused):
    code = "solution_spent"


class TooManyRows(RequestError):
    status = 413
    code = "too_many_rows"
    unreadable = True


class TooManyPixels(RequestError):
    """A picture larger than is decoded, or pictures that are so together."""

    status = 413
    code = "too_many_pixels"
    unreadable = True


class TooMuchWork(RequestError):
    status = 413
    code = "too_much_work"


class UnsupportedContent(RequestError):
    status = 415
    code = "unsupported_content_type"
    unreadable = True


class WorkWanted(RequestError):
    status = 428
    code = "proof_of_work"


class RateLimited(RequestError):
    """`limit` that is reached, and whole seconds until it is worth another try."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, *, limit: str, seconds: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.seconds = seconds


class Internal(RequestError):
    status = 500
    code = "internal"


class StageFailed(RequestError):
    status = 503
    code = "stage_failed"


class StoreFailed(RequestError):
    status = 503
    code = "store_failed"


class LoadError(RuntimeError):
    """An archive that cannot serve. TorchServe logs a RuntimeError at load and marks the worker as failed."""


class KeyMissing(LoadError):
    """No key where the policy expects one."""


class KeyUnusable(LoadError):
    """A key that others can read, that is too short or that is not hexadecimal."""


def for_log(error: BaseException) -> str:
    """What happened and where, on one line that is safe to log.

    TorchServe reads a worker's output as metrics and commands, and an exception's text may hold what a client
    sent: line breaks are escaped and the text is truncated.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "no line"
    return f"{type(error).__name__} at {where}: {ascii(str(error))[:300]}"
