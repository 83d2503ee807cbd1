# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.limits import (
    WINDOWS,
    Anchored,
    Fixed,
    RateLimit,
    Sliding,
    javascript_date,
)
from tests.unit.sandbox.conftest import Client

GAPS = st.lists(st.floats(0, 1.5), max_size=80)


def admitted(window: Sliding | Anchored, moments: list[float]) -> list[float]:
    return [moment for moment in moments if not window.admit(moment).refused]


def moments(gaps: list[float]) -> list[float]:
    at, found = 100.0, []
    for gap in gaps:
        at += gap
        found.append(at)
    return found


@given(GAPS)
def test_no_period_of_a_sliding_window_exceeds_the_limit(gaps: list[float]) -> None:
    passed = admitted(Sliding(5, 2.0), moments(gaps))
    for start in passed:
        assert sum(start <= moment < start + 2.0 for moment in passed) <= 5


@given(GAPS)
def test_a_sliding_window_refuses_only_above_the_limit(gaps: list[float]) -> None:
    window, passed = Sliding(5, 2.0), []
    for moment in moments(gaps):
        room = sum(moment - 2.0 < earlier for earlier in passed) < 5
        assert window.admit(moment).refused is not room
        if room:
            passed.append(moment)


@pytest.mark.parametrize("kind", ["sliding", "fixed", "anchored"])
@given(gaps=GAPS)
def test_a_window_admits_a_request_after_the_stated_wait(kind: str, gaps: list[float]) -> None:
    window = WINDOWS[kind](5, 2.0)
    at = 100.0
    for gap in gaps:
        at += gap
        admission = window.admit(at)
        assert 0 <= admission.wait <= 2.0 + 1e-9
        if admission.refused:
            at += admission.wait + 1e-6
            assert not window.admit(at).refused


def test_a_fixed_window_admits_a_double_burst_across_its_boundary() -> None:
    assert len(admitted(Fixed(5, 2.0), [1.99] * 6 + [2.01] * 6)) == 10


def test_an_anchored_window_starts_with_the_first_request() -> None:
    window = Anchored(5, 2.0)
    assert len(admitted(window, [1.99] * 6 + [2.01] * 6)) == 5
    assert len(admitted(window, [3.98, 3.995])) == 1


def test_keys_do_not_share_a_limit() -> None:
    limit = RateLimit("sliding", 1, 2.0)
    assert [limit.admit(key, 100.0).refused for key in ("a", "b", "a")] == [False, False, True]


def test_the_reset_date_has_the_format_of_javascript() -> None:
    # The documented example.
    assert javascript_date(1613462562) == (
        "Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)"
    )


def test_twenty_requests_are_admitted_and_all_responses_have_the_headers() -> None:
    with Sandbox(window=30) as lemlist, ThreadPoolExecutor(8) as pool:

        def get(_: int) -> requests.Response:
            return requests.get(f"{lemlist.url}/team", auth=("", lemlist.api_key), timeout=5)

        responses = list(pool.map(get, range(25)))
        refused = [each for each in responses if each.status_code == 429]
        assert len(refused) == 5
        for response in responses:
            assert response.headers["X-RateLimit-Limit"] == "20"
            assert 1 <= int(response.headers["Retry-After"]) <= 30
            assert response.headers["X-RateLimit-Reset"].endswith("(Central European Standard Time)")
        assert {each.headers["X-RateLimit-Remaining"] for each in refused} == {"0"}
        remaining = sorted(int(each.headers["X-RateLimit-Remaining"]) for each in responses)
        assert remaining == [0] * 5 + list(range(20))
        state = lemlist.state()
        (meter,) = state["limit"]["keys"].values()
        assert meter == {"admitted": 20, "refused": 5, "busiest": 25}
        assert [each["rule"] for each in state["violations"]] == ["rate"] * 5


def test_a_refused_request_has_no_effect() -> None:
    with Sandbox(requests=1, window=30) as lemlist, Client(lemlist) as http:
        http.get("/team")
        assert http.post("/campaigns", json={"name": "x"}).status_code == 429
        assert lemlist.state()["campaigns"] == []


@pytest.mark.parametrize("wrong", [{"requests": 0}, {"window": 0}])
def test_a_limit_that_admits_no_request_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="admits no request"):
        Sandbox(**wrong)
