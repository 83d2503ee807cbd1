# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.activities import (
    KNOWN_TYPES,
    RESULT_LIMIT,
    Activity,
    Wait,
    advice,
    as_moment,
    as_types,
    start_of_run,
    window,
)
from airflow_provider_lemlist.exceptions import LemlistConfigurationError

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
FOR_REPLIES = Wait(types=("emailsReplied",), since=NOON)


def activity(number: int = 1, **fields: Any) -> Activity:
    row = {
        "_id": f"act_{number}",
        "type": "emailsReplied",
        "createdAt": (NOON + timedelta(minutes=number)).isoformat(),
        "leadId": "lea_1",
        "isFirst": True,
    }
    return Activity.of(row | fields)


class TestWhatCounts:
    def test_the_first_moment_is_inclusive(self):
        assert FOR_REPLIES.counts(activity(createdAt="2026-03-02T12:00:00.000Z"))
        assert not FOR_REPLIES.counts(activity(createdAt="2026-03-02T11:59:59.999Z"))

    def test_other_types_do_not_count(self):
        assert not FOR_REPLIES.counts(activity(type="emailsOpened"))

    def test_any_of_several_types_counts(self):
        wait = Wait(types=("emailsReplied", "linkedinReplied"), since=NOON)
        assert wait.counts(activity())
        assert wait.counts(activity(type="linkedinReplied"))

    def test_other_leads_do_not_count(self):
        wait = Wait(types=("emailsReplied",), since=NOON, lead_id="lea_1")
        assert wait.counts(activity())
        assert not wait.counts(activity(leadId="lea_2"))

    def test_a_lead_named_in_the_meta_data_only_is_found(self):
        wait = Wait(types=("emailsReplied",), since=NOON, lead_id="lea_1")
        assert wait.counts(activity(leadId=None, metaData={"leadId": "lea_1"}))

    @pytest.mark.parametrize(
        ("is_first", "said", "counts"),
        [
            (None, True, True),
            (None, False, True),
            (True, True, True),
            (True, False, False),
            (False, True, False),
            (False, False, True),
            # A row that does not say has passed lemlist's own filter.
            (True, None, True),
            (False, None, True),
        ],
    )
    def test_first_and_later_ones_are_told_apart(self, is_first, said, counts):
        wait = Wait(types=("emailsReplied",), since=NOON, is_first=is_first)
        assert wait.counts(activity(isFirst=said)) is counts

    @pytest.mark.parametrize("created", [None, "", "yesterday", 5])
    def test_a_row_without_a_date_counts_for_it_was_listed_in_the_window(self, created):
        assert FOR_REPLIES.counts(activity(createdAt=created))


class TestFind:
    def test_too_few_are_none(self):
        assert FOR_REPLIES.find([]) is None
        assert Wait(types=("emailsReplied",), since=NOON, min_count=3).find(map(activity, (1, 2))) is None

    def test_a_repeated_row_counts_once(self):
        wait = Wait(types=("emailsReplied",), since=NOON, min_count=2)
        assert wait.find([activity(1), activity(1)]) is None
        assert len(wait.find([activity(1), activity(1), activity(2)]) or []) == 2

    @given(st.permutations(range(1, 9)))
    def test_the_oldest_comes_first(self, order):
        found = FOR_REPLIES.find(map(activity, order))
        assert [row["_id"] for row in found or []] == [f"act_{number}" for number in range(1, 9)]

    def test_reading_stops_at_the_limit(self):
        rows = (activity(number) for number in range(10 * RESULT_LIMIT))
        assert len(FOR_REPLIES.find(rows) or []) == RESULT_LIMIT
        assert next(rows).id == f"act_{RESULT_LIMIT}"

    def test_who_waits_for_more_than_the_limit_gets_them(self):
        wait = Wait(types=("emailsReplied",), since=NOON, min_count=RESULT_LIMIT + 1)
        assert wait.find(map(activity, range(RESULT_LIMIT))) is None
        assert len(wait.find(map(activity, range(RESULT_LIMIT + 5))) or []) == RESULT_LIMIT + 1

    def test_no_person_is_handed_on(self):
        row = {
            "leadEmail": "ana.ruiz@example.com",
            "leadFirstName": "Ana",
            "leadPhone": "+34",
            "messageId": "<x@example.com>",
            "note": "Ana said",
            "lead": {"variables": {"email": "ana.ruiz@example.com"}},
            "metaData": {},
            "stepId": "stp_1",
        }
        [found] = FOR_REPLIES.find([activity(**row)]) or []
        assert found == {
            "_id": "act_1",
            "type": "emailsReplied",
            "createdAt": "2026-03-02T12:01:00+00:00",
            "leadId": "lea_1",
            "isFirst": True,
            "stepId": "stp_1",
        }


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "types"),
        [
            ("emailsReplied", ("emailsReplied",)),
            (" emailsReplied ", ("emailsReplied",)),
            (["emailsReplied", "linkedinReplied", "emailsReplied"], ("emailsReplied", "linkedinReplied")),
            (("newToday",), ("newToday",)),
        ],
    )
    def test_types_are_one_name_or_several(self, given, types):
        assert as_types(given) == types

    @pytest.mark.parametrize("given", ["", " ", "None", None, [], 5, {}, [None], [""], ["emailsReplied", 5]])
    def test_what_is_no_type_is_refused(self, given):
        with pytest.raises(LemlistConfigurationError, match="activity_type"):
            as_types(given)

    @pytest.mark.parametrize(
        "given",
        [
            NOON,
            datetime(2026, 3, 2, 12),
            datetime(2026, 3, 2, 13, tzinfo=timezone(timedelta(hours=1))),
            "2026-03-02T12:00:00Z",
            "2026-03-02T12:00:00.000Z",
            "2026-03-02 12:00:00+00:00",  # how a template writes a datetime
            "2026-03-02T13:00:00+01:00",
            "2026-03-02T12:00",
            " 2026-03-02T12:00:00Z ",
        ],
    )
    def test_a_moment_is_a_datetime_or_iso_text_and_utc_without_a_zone(self, given):
        assert as_moment(given) == NOON
        assert as_moment(given).utcoffset() == timedelta(0)

    def test_a_date_is_its_midnight(self):
        assert as_moment("2026-03-02") == NOON - timedelta(hours=12)

    @pytest.mark.parametrize("given", ["", "None", "yesterday", "{{ ds }}", 5, None, date(2026, 3, 2)])
    def test_what_is_no_moment_is_refused(self, given):
        with pytest.raises(LemlistConfigurationError, match="since must be"):
            as_moment(given)

    def test_a_run_starts_with_its_data_interval(self):
        run = SimpleNamespace(data_interval_start=NOON, start_date=NOON + timedelta(days=1))
        assert start_of_run(run) == NOON

    def test_a_run_without_a_data_interval_starts_when_it_starts(self):
        assert start_of_run(SimpleNamespace(data_interval_start=None, start_date=NOON)) == NOON

    def test_a_run_without_any_start_says_what_to_do(self):
        with pytest.raises(LemlistConfigurationError, match="give since="):
            start_of_run(SimpleNamespace(data_interval_start=None, start_date=None))


@given(st.timedeltas(min_value=timedelta(days=-2), max_value=timedelta(days=2)))
def test_the_upper_bound_is_above_the_lower_one_even_in_whole_seconds(age):
    bounds = window(NOON, NOON + age)
    assert bounds["since"] == NOON
    assert int(bounds["until"].timestamp()) > int(bounds["since"].timestamp())
    assert bounds["until"] >= NOON + age


class TestAdvice:
    def test_known_types_need_none(self):
        assert all(advice(name) is None for name in KNOWN_TYPES)

    @pytest.mark.parametrize(
        ("given", "near"),
        [
            ("emailOpened", "emailsOpened"),
            ("emailsreplied", "emailsReplied"),
            ("linkedInInviteAccepted", "linkedinInviteAccepted"),
            ("metingBooked", "meetingBooked"),
        ],
    )
    def test_an_unknown_type_gets_the_nearest_known_one(self, given, near):
        assert f"Did you mean {near!r}?" in str(advice(given))

    def test_a_type_like_no_other_gets_no_guess(self):
        assert "Did you mean" not in str(advice("zzzz"))
