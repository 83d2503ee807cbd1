# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.datasets import DATASETS
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistUnexpectedReplyError
from airflow_provider_lemlist.stats import (
    METRICS,
    Excess,
    Figures,
    Period,
    StatsCondition,
    checked_channels,
    checked_metric,
    exceeded,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
COUNTERS = sorted({each for metric in METRICS.values() for each in (metric.counter, metric.whole) if each})
BOTH = {"bounce_rate": 0.03, "unsubscribe_rate": 0.02}
counts = st.integers(0, 10**6)
limits = st.integers(0, 10_000).map(lambda number: number / 10_000)


def figures(**counters: Any) -> Figures:
    return Figures.of("cam_1", counters, NOON, NOON + timedelta(days=7))


class TestFigures:
    def test_every_counter_is_one_that_lemlist_documents(self):
        documented = {source for each in DATASETS["campaign_stats"].columns for source in each.sources}
        assert set(COUNTERS) <= documented

    @given(st.dictionaries(st.sampled_from(COUNTERS), counts))
    def test_metric_is_a_count_or_a_part_and_an_error_where_a_counter_is_missing(self, row):
        of_row = figures(**row)
        report = of_row.report()
        for name, metric in METRICS.items():
            needed = [metric.counter, metric.whole] if metric.whole else [metric.counter]
            reported = {**report["figures"], **report["rates"]}[name]
            if not {*needed} <= row.keys():
                with pytest.raises(LemlistUnexpectedReplyError, match="campaign cam_1 lack"):
                    of_row.value(name)
                assert reported is None
            elif metric.whole:
                part, whole = (row[each] for each in needed)
                assert of_row.value(name) == reported == (part / whole if whole else None)
            else:
                assert of_row.value(name) == reported == row[metric.counter]

    @pytest.mark.parametrize("value", [None, "5", 5.0, -1, True, [5], {}])
    def test_what_is_no_count_is_missing_and_not_zero(self, value):
        with pytest.raises(LemlistUnexpectedReplyError, match="lack messagesSent"):
            _ = figures(messagesSent=value).sent

    def test_rate_of_nothing_is_none_and_not_zero(self):
        assert figures(messagesSent=0, messagesBounced=0).value("bounce_rate") is None

    def test_text_has_the_counts_of_a_rate(self):
        row = figures(messagesSent=1200, messagesBounced=62, replied=3100)
        assert row.text("bounce_rate") == "bounce_rate 5.17% (62 of 1,200)"
        assert row.text("replied") == "replied 3,100"
        assert figures(messagesSent=0, messagesBounced=2).text("bounce_rate") == "bounce_rate (2 of 0)"

    def test_report_has_the_period_and_every_metric(self):
        report = figures().report()
        assert {*report["figures"], *report["rates"]} == {*METRICS}
        assert (report["since"], report["until"]) == (
            "2026-03-02T12:00:00+00:00",
            "2026-03-09T12:00:00+00:00",
        )


class TestExceeded:
    @given(counts, counts, counts, counts, st.integers(0, 100), limits, limits)
    def test_metric_is_beyond_its_limit_exactly_if_its_part_is_larger(
        self, sent, bounced, reached, unsubscribed, min_sent, max_bounced, max_unsubscribed
    ):
        row = figures(
            messagesSent=sent,
            messagesBounced=bounced,
            nbLeadsReached=reached,
            nbLeadsUnsubscribed=unsubscribed,
        )
        limits = {"bounce_rate": max_bounced, "unsubscribe_rate": max_unsubscribed}
        found = exceeded(row, limits, min_sent=min_sent)
        if sent < min_sent:
            assert found is None
            return
        expected = [
            Excess(metric, part / whole if whole else None, limit)
            for metric, part, whole, limit in (
                ("bounce_rate", bounced, sent, max_bounced),
                ("unsubscribe_rate", unsubscribed, reached, max_unsubscribed),
            )
            # As if computed without rounding; a limit such as 0.29 stands for 29 of 100.
            if part > Fraction(str(limit)) * whole
        ]
        assert found == expected

    @given(limits.filter(bool), st.integers(1, 1000))
    def test_limit_itself_is_within(self, limit, hundreds):
        part = Fraction(str(limit)) * 10_000 * hundreds
        row = figures(messagesSent=10_000 * hundreds, messagesBounced=int(part))
        assert exceeded(row, {"bounce_rate": limit}, min_sent=50) == []

    @given(counts.filter(bool), limits, counts.filter(bool))
    def test_more_bounces_never_make_a_campaign_safer(self, sent, limit, bounced):
        fewer = figures(messagesSent=sent, messagesBounced=bounced - 1)
        more = figures(messagesSent=sent, messagesBounced=bounced)
        assert len(exceeded(fewer, {"bounce_rate": limit}, min_sent=0) or ()) <= len(
            exceeded(more, {"bounce_rate": limit}, min_sent=0) or ()
        )

    def test_some_of_nothing_are_beyond_every_limit_and_none_of_nothing_within(self):
        row = figures(messagesSent=60, messagesBounced=0, nbLeadsReached=0, nbLeadsUnsubscribed=1)
        assert exceeded(row, BOTH, min_sent=50) == [Excess("unsubscribe_rate", None, 0.02)]
        row = figures(messagesSent=60, messagesBounced=0, nbLeadsReached=0, nbLeadsUnsubscribed=0)
        assert exceeded(row, BOTH, min_sent=50) == []

    @pytest.mark.parametrize(
        "missing", ["messagesSent", "messagesBounced", "nbLeadsReached", "nbLeadsUnsubscribed"]
    )
    @pytest.mark.parametrize("sent", [10, 100])
    def test_missing_counter_is_an_error_however_few_messages_were_sent(self, missing, sent):
        row = {"messagesSent": sent, "messagesBounced": 0, "nbLeadsReached": 90, "nbLeadsUnsubscribed": 0}
        del row[missing]
        with pytest.raises(LemlistUnexpectedReplyError, match=missing):
            exceeded(figures(**row), BOTH, min_sent=50)

    @pytest.mark.parametrize("metric", BOTH)
    def test_missing_counter_does_not_hide_another_limit_that_is_exceeded(self, metric):
        row = {"messagesSent": 100, "messagesBounced": 9, "nbLeadsReached": 90, "nbLeadsUnsubscribed": 9}
        del row[METRICS[metric].counter]
        [excess] = exceeded(figures(**row), BOTH, min_sent=50) or ()
        assert {excess.metric, metric} == {*BOTH}


class TestCondition:
    @given(counts, counts, limits.filter(bool))
    def test_a_rate_is_above_or_below_or_at_its_limit(self, sent, bounced, limit):
        row = figures(messagesSent=sent, messagesBounced=bounced)
        above = StatsCondition("bounce_rate", above=limit).find(row)
        below = StatsCondition("bounce_rate", below=limit).find(row)
        difference = bounced - Fraction(str(limit)) * sent
        assert (above is not None) == (difference > 0)
        assert (below is not None) == (difference < 0)

    @given(counts, counts)
    def test_a_count_is_above_or_below_or_at_its_limit(self, replied, limit):
        row = figures(replied=replied)
        assert (StatsCondition("replied", above=limit).find(row) is not None) == (replied > limit)
        assert (StatsCondition("replied", below=limit).find(row) is not None) == (replied < limit)

    def test_a_rate_of_nothing_is_neither_above_nor_below(self):
        row = figures(messagesSent=0, messagesBounced=0)
        assert StatsCondition("bounce_rate", above=0).find(row) is None
        assert StatsCondition("bounce_rate", below=1).find(row) is None

    def test_too_few_messages_are_waited_for(self):
        condition = StatsCondition("bounce_rate", below=0.5, min_sent=50)
        assert condition.find(figures(messagesSent=49, messagesBounced=0)) is None
        assert condition.find(figures(messagesSent=50, messagesBounced=0)) is not None

    def test_what_is_found_names_the_metric_and_has_the_figures(self):
        row = figures(messagesSent=100, messagesBounced=4)
        assert StatsCondition("bounce_rate", above=0.03).find(row) == {
            "metric": "bounce_rate",
            "value": 0.04,
            **row.report(),
        }

    def test_missing_counter_is_an_error(self):
        with pytest.raises(LemlistUnexpectedReplyError, match="replied"):
            StatsCondition("replied", below=5).find(figures())
        with pytest.raises(LemlistUnexpectedReplyError, match="messagesSent"):
            StatsCondition("replied", above=0, min_sent=1).find(figures(replied=5))


class TestPeriod:
    def test_window_moves_and_a_moment_does_not(self):
        later = NOON + timedelta(hours=1)
        assert Period(since=NOON).bounds(later) == (NOON, later)
        assert Period(window=timedelta(days=1)).bounds(later) == (later - timedelta(days=1), later)

    @pytest.mark.parametrize("ahead", [timedelta(), timedelta(days=1)])
    def test_the_end_is_after_the_start(self, ahead):
        since, until = Period(since=NOON + ahead).bounds(NOON)
        assert since < until


class TestArguments:
    def test_unknown_metric_is_named_with_the_nearest(self):
        with pytest.raises(LemlistConfigurationError, match="The metric must be one of .*'bounce_rate'"):
            checked_metric("bouncerate", "The metric")
        with pytest.raises(LemlistConfigurationError, match="not None"):
            checked_metric(None, "The metric")

    @pytest.mark.parametrize("value", ["email", [], ["fax"], None, {"email"}, [["email"]]])
    def test_channels_are_a_list_of_those_that_lemlist_knows(self, value):
        with pytest.raises(LemlistConfigurationError, match="must be a list of email, linkedin, others"):
            checked_channels(value, "The channels")

    def test_channels_in_any_order_are_the_same_request(self):
        assert checked_channels(["others", "email", "email"], "x") == ("email", "others")
