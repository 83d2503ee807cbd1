# SPDX-License-Identifier: Apache-2.0
"""What the log and the metrics say while requests wait, on a clock that the test sets."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import pytest

from airflow_provider_lemlist.api.pending import PendingRequest, PendingRequests
from tests.unit.conftest import Emitted


class Process:
    """The requests of a process whose clock the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.pending = PendingRequests(lambda: self.now)

    def request(self, wait: float = 0.0) -> PendingRequest:
        request = self.pending.begin()
        self.pending.wait(request, wait)
        return request

    def sent(self, wait: float = 0.0) -> PendingRequest:
        request = self.request(wait)
        self.pending.send(request)
        return request

    def pass_by(self, seconds: float) -> None:
        """Let time pass; the threads that wait look five times a second."""
        for _ in range(round(seconds * 5)):
            self.now += 0.2
            self.pending.look()


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Return what was logged so far: level and message."""
    caplog.set_level(logging.INFO, logger="airflow_provider_lemlist")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_three_hundred_long_waits_of_five_minutes_are_six_lines(process, said):
    for _ in range(50):
        requests = [process.request(wait) for wait in (0.1, 2.0, 6.0, 6.0, 6.0, 6.0)]
        process.pass_by(6.0)
        for request in requests:
            process.pending.send(request)
            process.pending.end(request, responded=True)
    assert len(said()) == 5
    assert said()[0] == (
        "INFO",
        "Rate budget: 5 requests wait for a slot; the next leaves in 1.8 s, the last in 5.8 s",
    )


def test_short_waits_are_not_logged(process, said):
    for _ in range(100):
        request = process.request(4.9)
        process.pass_by(4.9)
        process.pending.end(request, responded=True)
    assert said() == []


def test_a_wait_is_counted_while_it_lasts(process, emitted: Emitted):
    requests = [process.request(300.0) for _ in range(3)]
    process.pass_by(10.0)
    counted = emitted.counters["lemlist.waiting_milliseconds"]
    assert 27_000 <= counted <= 30_000
    for request in requests:
        process.pending.end(request, responded=False)
    assert emitted.counters["lemlist.waiting_milliseconds"] == pytest.approx(30_000, abs=3)


def test_wait_before_a_request_leaves_is_counted_and_time_for_response_is_not(process, emitted: Emitted):
    request = process.request(0.5)
    process.now += 0.5
    process.pending.send(request)
    process.now += 40.0
    process.pending.look()
    process.pending.end(request, responded=True)
    assert emitted.counters == {"lemlist.waiting_milliseconds": 500, "lemlist.requests": 1}
    assert emitted.timings == {"lemlist.latency": [40.0]}


def test_a_request_that_never_left_is_not_counted_as_a_request(process, emitted: Emitted):
    process.pending.end(process.request(), responded=False)
    assert emitted.counters == {}


class TestStall:
    def test_is_told_once_with_what_is_waited_for_and_when_it_ends(self, process, said, emitted):
        silent, waiting = process.sent(), process.request(0.2)
        process.pass_by(59.0)
        assert said() == []
        process.pass_by(180.0)
        message = (
            "No response from lemlist for 60 s. 2 requests are under way: 1 waiting for a slot of the rate "
            "budget; 1 waiting for a response"
        )
        assert said() == [("WARNING", message)]
        process.pending.end(silent, responded=True)
        process.pass_by(30.0)
        process.pending.end(waiting, responded=True)
        assert said()[1:] == [("INFO", "lemlist responds again, after 239 s")]
        assert emitted.counters["lemlist.stalls"] == 1

    def test_is_told_again_when_there_is_another_one(self, process, emitted):
        for _ in range(2):
            request = process.sent()
            process.pass_by(100.0)
            process.pending.end(request, responded=True)
        assert emitted.counters["lemlist.stalls"] == 2

    def test_of_one_thread_is_told_when_its_attempts_time_out(self, process, said):
        for _ in range(3):
            request = process.sent()
            process.now += 30.0
            process.pending.end(request, responded=False)
        assert [level for level, _ in said()] == ["WARNING"]

    def test_is_not_a_long_queue(self, process, emitted):
        """A slot that is minutes away is what the budget has told."""
        request = process.request(290.0)
        process.pass_by(289.0)
        process.pending.send(request)
        process.pending.end(request, responded=True)
        assert emitted.counters["lemlist.stalls"] == 0

    def test_is_not_one_slow_request_while_others_are_responded_to(self, process, emitted):
        process.sent()
        for _ in range(20):
            process.pass_by(10.0)
            process.pending.end(process.sent(), responded=True)
        assert emitted.counters["lemlist.stalls"] == 0

    def test_is_not_a_pause_between_two_requests(self, process, emitted):
        for _ in range(3):
            process.pending.end(process.sent(), responded=True)
            process.now += 3600.0
        process.pass_by(1.0)
        assert emitted.counters["lemlist.stalls"] == 0


def test_a_fork_does_not_wait_for_requests_of_its_parent(process, said):
    process.request(100.0)
    child = os.fork()
    if child == 0:
        process.pending.begin()
        os._exit(len(process.pending._requests))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
