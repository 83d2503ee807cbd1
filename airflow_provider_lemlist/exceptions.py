# SPDX-License-Identifier: Apache-2.0
"""
The errors of this provider: one base class, and one class for each thing that a caller may do about it.

An error that a retry cannot cure is also an ``AirflowFailException``, so Airflow fails the task at once;
the others are retried as the task's ``retries`` say. Messages name the remedy and the connection, never
the API key or a person.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from airflow.providers.common.compat.sdk import AirflowFailException


class Reason(Enum):
    """Why a request failed: the name for programs, the value for people."""

    NO_KEY = "No API key arrived."
    BAD_KEY = "lemlist does not accept the API key."
    NO_USER = "The API key belongs to no user."
    USER_BLOCKED = "The user of this API key is blocked in lemlist."
    FORBIDDEN = "This API key may not do that."
    BAD_TEAM = "An id belongs to another team than the API key, or the key has no team."
    PLAN = "The plan lacks this route, or the credits are used up."
    WATCHLIST_FULL = "The limit of monitored entities is reached."
    ALREADY_IN_CAMPAIGN = "The lead is already in this campaign."
    ALREADY_IN_OTHER_CAMPAIGN = "The lead is already in another campaign, and deduplicate is on."
    LEAD_LAUNCHED = "The lead was launched already."
    LEAD_PAUSED = "The lead is paused, and a paused lead cannot be launched."
    AI_VARIABLE_INVALID = "An AI variable of the lead is not valid."
    NO_SENDER = "The campaign has no sender for the lead."
    STEP_ERRORS = "A step of the campaign has an error."
    UNSUBSCRIBED = "The lead is unsubscribed and cannot be changed."
    NOT_UNSUBSCRIBED = "The value is not unsubscribed."
    PROTECTED = "The person unsubscribed or reported abuse, so lemlist keeps the value unsubscribed."
    EMAIL_NEEDED = "Unsubscribing takes the email of the lead, not its id."
    NO_SEQUENCE = "The campaign has no sequence."
    CAMPAIGN_RUNNING = "The campaign is running."
    CAMPAIGN_NOT_RUNNING = "The campaign is not running."
    CAMPAIGN_NOT_FOUND = "No campaign has this id for this API key."
    LEAD_NOT_FOUND = "No lead has this id or email for this API key."
    SEQUENCE_NOT_FOUND = "No sequence has this id for this API key."
    STEP_NOT_FOUND = "No step has this id in this sequence."
    NOT_FOUND = "Nothing has this id for this API key."
    MEDIA = "lemlist could not take the media of a LinkedIn step."
    BAD_METHOD = "This route does not take this method."
    CONFLICT = "The request conflicts with what exists."
    REFUSED = "lemlist refused the request as it is."
    RATE_LIMITED = "The rate limit of the API key was exceeded."
    SERVER = "lemlist failed."
    GATEWAY = "A proxy or the network in front of lemlist responded, not lemlist."
    NETWORK = "lemlist was not reached, or its response did not arrive."
    UNEXPECTED = "The response claims success, but is not what the operation returns."


class LemlistError(Exception):
    """
    The base of every error that this provider raises.

    :param message: What is wrong, where, and what to do.
    :param status: HTTP status of the response, None if there was none.
    :param text: What lemlist said, shortened; for a program, not for a log.
    :param operation: The request, such as ``POST /campaigns/{campaignId}/leads/``.
    :param reason: Why the request failed; None for what was refused before sending.
    :param in_doubt: Whether the request, or an earlier attempt, may have taken effect.
    :param conn_id: The connection; with it, ``str()`` adds to the message where it happened.
    :param request: The operation with the ids in its path.
    :param trace: By what lemlist's support finds the request: the id and the time of the response.
    """

    #: Whether the same call may succeed later without a change by anyone.
    retryable = True
    in_doubt = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        text: str | None = None,
        operation: object = None,
        reason: Reason | None = None,
        in_doubt: bool = False,
        conn_id: str = "",
        request: str = "",
        trace: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.text = text
        self.operation = None if operation is None else str(operation)
        self.reason = reason
        self.in_doubt = in_doubt or self.in_doubt
        self.conn_id = conn_id
        self.request = request
        self.trace = trace

    def __str__(self) -> str:
        if not self.conn_id:
            return self.message
        status = f", status {self.status}" if self.status else ""
        outcome = ", outcome unknown" if self.in_doubt else ""
        trace = f", {self.trace}" if self.trace else ""
        request = self.request or self.operation
        return f"{self.message} ({request}, connection {self.conn_id!r}{status}{outcome}{trace})"


class _Permanent(LemlistError, AirflowFailException):
    retryable = False


class LemlistConfigurationError(_Permanent, ValueError):
    """Raise when a connection or an argument cannot work, whatever lemlist responds."""


class LemlistWritesStoppedError(LemlistConfigurationError):
    """Raise when ``stop_writes`` of the connection is set, and the request would change something."""


class LemlistAuthError(_Permanent):
    """Raise when lemlist does not accept the key: it is wrong, has no user, or its user is blocked."""


class LemlistPlanError(_Permanent):
    """Raise when the plan lacks the route, or the credits are used up."""


class LemlistNotFoundError(_Permanent):
    """Raise when the campaign, lead, sequence or step does not exist for this key."""


class LemlistDuplicateError(_Permanent):
    """Raise when the lead, step or campaign exists already."""

    @property
    def where(self) -> Literal["campaign", "elsewhere"]:
        """``campaign`` for the campaign of the request, ``elsewhere`` for another one."""
        return "elsewhere" if self.reason is Reason.ALREADY_IN_OTHER_CAMPAIGN else "campaign"


class LemlistValidationError(_Permanent, ValueError):
    """Raise when a request is wrong in itself: found here before sending, or refused by lemlist."""


class LemlistMediaError(LemlistError):
    """Raise when lemlist could not take the media of a LinkedIn step this time."""

    @property
    def code(self) -> str:
        """One of lemlist's eight ``LINKEDIN_MEDIA_…`` codes."""
        return self.text or ""


class LemlistMediaRefusedError(LemlistMediaError, _Permanent):
    """Raise when lemlist will never take these media: too many, too large, of a wrong type or address."""


class LemlistRateLimitError(LemlistError):
    """
    Raise when a request would have waited for the rate budget longer than ``max_wait`` allows.

    :param wait: Seconds that the wait would have been.
    """

    def __init__(self, message: str, *, wait: float = 0.0, **details: Any) -> None:
        super().__init__(message, **details)
        self.wait = wait


class LemlistStoppedError(LemlistError):
    """Raise when a request was not sent, or not sent again, because the task is being stopped."""

    def __init__(
        self, message: str = "The task is being stopped, so no more requests are sent.", **details: Any
    ) -> None:
        super().__init__(message, **details)


class LemlistAuditError(LemlistError):
    """Raise when the audit trail cannot be written, so that nothing may be changed in lemlist."""


class LemlistServerError(LemlistError):
    """Raise when lemlist failed (5xx), and kept failing."""


class LemlistNetworkError(LemlistError):
    """Raise when lemlist could not be reached, or its response did not arrive."""


class LemlistUnexpectedReplyError(LemlistError):
    """Raise when a response claims success but is none: HTML, an empty body, or no id."""


class LemlistGuardError(_Permanent):
    """Raise when a campaign is not safe to send: too many bounces, or a check before a launch that fails."""


class LemlistUncertainError(_Permanent):
    """Raise when a change may or may not have happened: check in lemlist before it is tried again."""

    in_doubt = True
