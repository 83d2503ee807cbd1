# SPDX-License-Identifier: Apache-2.0
"""
The errors of this provider: one base class, one class for each thing that a caller may do about it.

An error that a retry cannot cure is also an ``AirflowFailException``, so Airflow fails the task at once;
the others are retried as the task's ``retries`` say. Messages name the remedy and the connection, never
the API key or a person.
"""

from __future__ import annotations

from typing import Literal

from airflow.providers.common.compat.sdk import AirflowFailException


class LemlistError(Exception):
    """
    The base of every error that this provider raises.

    :param message: What was wrong, where, and how to mend it.
    :param status: HTTP status of the answer, None when there was none.
    :param text: What lemlist said, shortened; for a program to look at, not for a log.
    :param operation: What was asked, such as ``POST /campaigns/{campaignId}/leads/``.
    """

    #: Whether the same call may succeed later without anybody changing anything.
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        text: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.text = text
        self.operation = operation


class LemlistConfigurationError(LemlistError, AirflowFailException, ValueError):
    """Raise when a connection or an argument cannot work, whatever lemlist says."""

    retryable = False


class LemlistAuthError(LemlistError, AirflowFailException):
    """Raise when lemlist does not accept the key: wrong, of nobody, or of a blocked user."""

    retryable = False


class LemlistPlanError(LemlistError, AirflowFailException):
    """Raise when the plan lacks the route, or the credits are used up."""

    retryable = False


class LemlistNotFoundError(LemlistError, AirflowFailException):
    """Raise when the campaign, lead, sequence or step does not exist for this key."""

    retryable = False


class LemlistDuplicateError(LemlistError, AirflowFailException):
    """
    Raise when the lead is already there.

    :param where: ``campaign`` for the campaign asked for, ``elsewhere`` for another one.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        where: Literal["campaign", "elsewhere"] = "campaign",
        status: int | None = None,
        text: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message, status=status, text=text, operation=operation)
        self.where = where


class LemlistValidationError(LemlistError, AirflowFailException, ValueError):
    """Raise when a request is wrong in itself: found here before sending, or refused by lemlist."""

    retryable = False


class LemlistMediaError(LemlistError):
    """
    Raise when lemlist could not take the media of a LinkedIn step this time.

    :param code: One of lemlist's eight ``LINKEDIN_MEDIA_…`` codes.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        text: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message, status=status, text=text, operation=operation)
        self.code = code


class LemlistMediaRefusedError(LemlistMediaError, AirflowFailException):
    """Raise when lemlist will never take these media: too many, too large, of a wrong type or address."""

    retryable = False


class LemlistRateLimitError(LemlistError):
    """
    Raise when a request would have waited longer for the rate budget than ``max_wait`` allows.

    :param wait: Seconds that the wait would have been.
    """

    def __init__(
        self,
        message: str,
        *,
        wait: float = 0.0,
        status: int | None = None,
        text: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message, status=status, text=text, operation=operation)
        self.wait = wait


class LemlistServerError(LemlistError):
    """Raise when lemlist failed (5xx) and went on failing."""


class LemlistNetworkError(LemlistError):
    """Raise when lemlist could not be reached, or the answer did not arrive."""


class LemlistUnexpectedReplyError(LemlistError):
    """Raise when an answer claims success and is none: HTML, nothing, or no id."""


class LemlistUncertainError(LemlistError, AirflowFailException):
    """Raise when a change may or may not have happened: a person must look before it is tried again."""

    retryable = False
