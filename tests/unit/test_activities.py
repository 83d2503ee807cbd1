# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.activities import (
    KNOWN_TYPES,
    RESULT_LIMIT,
    Activity,
    WaitCondition,
    checked_types,
    listing_bounds,
    unknown_type_warning,
)
from airflow_provider_lemlist.exceptions import LemlistConfigurationError

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
REPLIES = WaitCondition(types=("emailsReplied",), since=NOON)


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
        assert REPLIES.counts(activity(createdAt="2026-03-02T12:00:00.000Z"))
        assert not REPLIES.counts(activity(createdAt="2026-03-02T11:59:59.999Z"))

    def test_other_types_do_not_count(self):
        assert not REPLIES.counts(activity(type="emailsOpened"))

    def test_any_of_several_types_counts(self):
        condition = WaitCondition(types=("emailsReplied", "linkedinReplied"), since=NOON)
        assert condition.counts(activity())
        assert condition.counts(activity(type="linkedinReplied"))

    def test_other_leads_do_not_count(self):
        condition = WaitCondition(types=("emailsReplied",), since=NOON, lead_id="lea_1")
        assert condition.counts(activity())
        assert not condition.counts(activity(leadId="lea_2"))

    def test_a_lead_id_in_the_meta_data_only_is_found(self):
        condition = WaitCondition(types=("emailsReplied",), since=NOON, lead_id="lea_1")
        assert condition.counts(activity(leadId=None, metaData={"leadId": "lea_1"}))

    @pytest.mark.parametrize(
        ("is_first", "flag", "counts"),
        [
            (None, True, True),
            (None, False, True),
            (True, True, True),
            (True, False, False),
            (False, True, False),
            (False, False, True),
            # A row without the flag has passed lemlist's own filter.
            (True, None, True),
            (False, None, True),
        ],
    )
    def test_first_and_later_activities_are_distinguished(self, is_first, flag, counts):
        condition = WaitCondition(types=("emailsReplied",), since=NOON, is_first=is_first)
        assert condition.counts(activity(isFirst=flag)) is counts

    @pytest.mark.parametrize("created", [None, "", "yesterday", 5])
    def test_a_row_without_a_date_counts_because_it_was_listed_in_the_window(self, created):
        assert REPLIES.counts(activity(createdAt=created))


class TestBots:
    @pytest.mark.parametrize(
        "activity_type", ["emailsOpened", "emailsClicked", "linkedinOpened", "smsClicked"]
    )
    def test_opens_and_clicks_by_bots_count_only_on_request(self, activity_type):
        by_bot = activity(type=activity_type, bot=True)
        by_person = activity(type=activity_type, bot=False)
        ignoring = WaitCondition(types=(activity_type,), since=NOON)
        counting = replace(ignoring, bots="count")
        assert (ignoring.counts(by_bot), ignoring.counts(by_person)) == (False, True)
        assert (counting.counts(by_bot), counting.counts(by_person)) == (True, True)

    def test_a_reply_counts_whatever_its_bot_flag(self):
        assert REPLIES.counts(activity(bot=True))

    def test_an_activity_without_the_flag_counts(self):
        assert replace(REPLIES, types=("emailsOpened",)).counts(activity(type="emailsOpened"))

    def test_the_flag_is_returned(self):
        [found] = replace(REPLIES, bots="count").find([activity(bot=True)]) or []
        assert found["bot"] is True


class TestFind:
    def test_too_few_activities_return_none(self):
        assert REPLIES.find([]) is None
        assert (
            WaitCondition(types=("emailsReplied",), since=NOON, min_count=3).find(map(activity, (1, 2)))
            is None
        )

    def test_a_repeated_row_counts_once(self):
        condition = WaitCondition(types=("emailsReplied",), since=NOON, min_count=2)
        assert condition.find([activity(1), activity(1)]) is None
        assert len(condition.find([activity(1), activity(1), activity(2)]) or []) == 2

    @given(st.permutations(range(1, 9)))
    def test_the_oldest_comes_first(self, order):
        found = REPLIES.find(map(activity, order))
        assert [row["_id"] for row in found or []] == [f"act_{number}" for number in range(1, 9)]

    def test_reading_stops_at_the_limit(self):
        rows = (activity(number) for number in range(10 * RESULT_LIMIT))
        assert len(REPLIES.find(rows) or []) == RESULT_LIMIT
        assert next(rows).id == f"act_{RESULT_LIMIT}"

    def test_a_higher_min_count_raises_the_limit(self):
        condition = WaitCondition(types=("emailsReplied",), since=NOON, min_count=RESULT_LIMIT + 1)
        assert condition.find(map(activity, range(RESULT_LIMIT))) is None
        assert len(condition.find(map(activity, range(RESULT_LIMIT + 5))) or []) == RESULT_LIMIT + 1

    def test_no_personal_data_is_returned(self):
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
        [found] = REPLIES.find([activity(**row)]) or []
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
        assert checked_types(given) == types

    @pytest.mark.parametrize("given", ["", " ", "None", None, [], 5, {}, [None], [""], ["emailsReplied", 5]])
    def test_values_that_are_not_a_type_are_refused(self, given):
        with pytest.raises(LemlistConfigurationError, match="activity_type"):
            checked_types(given)


@given(st.timedeltas(min_value=timedelta(days=-2), max_value=timedelta(days=2)))
def test_the_upper_bound_is_above_the_lower_one_even_in_whole_seconds(age):
    bounds = listing_bounds(NOON, NOON + age)
    assert bounds["since"] == NOON
    assert int(bounds["until"].timestamp()) > int(bounds["since"].timestamp())
    assert bounds["until"] >= NOON + age


class TestUnknownTypes:
    def test_known_types_have_no_warning(self):
        assert all(unknown_type_warning(name) is None for name in KNOWN_TYPES)

    @pytest.mark.parametrize(
        ("given", "near"),
        [
            ("emailOpened", "emailsOpened"),
            ("emailsreplied", "emailsReplied"),
            ("linkedInInviteAccepted", "linkedinInviteAccepted"),
            ("metingBooked", "meetingBooked"),
        ],
    )
    def test_an_unknown_type_is_warned_about_with_the_nearest_known_one(self, given, near):
        assert f"did you mean {near!r}?" in str(unknown_type_warning(given))

    def test_a_type_unlike_any_other_has_no_suggestion(self):
        assert "did you mean" not in str(unknown_type_warning("zzzz"))
