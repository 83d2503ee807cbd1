# SPDX-License-Identifier: Apache-2.0
"""The rules of the budget, as properties of pure functions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_lemlist.api.budget.arithmetic import (
    HEADROOM,
    LEAST,
    LEAST_MARGIN,
    LIMIT,
    LONGEST_PAUSE,
    MARGIN,
    MAX_LIMIT,
    PERHAPS,
    PROBE,
    READING,
    REFUSED,
    SECOND,
    WHOLE,
    WIDE_FOR,
    WIDE_MARGIN,
    WINDOW,
    Booking,
    Feedback,
    State,
    Terms,
    advance,
    book,
    dump,
    left_to_us,
    load,
    margin,
    place,
    report,
    room,
    waiting,
    without_credit,
)

START = 1_000 * SECOND
TERMS = Terms(max_wait=10_000 * SECOND)


def feedback(
    booking, *, refused=False, limit=-1, remaining=-1, retry_after=-1, round_trip=-1, late=0, share=WHOLE
):
    return Feedback(booking, refused, limit, remaining, retry_after, round_trip, late, share)


def reported(state, now, feedback):
    return report(state, now, feedback)[0]


def book_many(state, now, count, terms=TERMS):
    bookings = []
    for _ in range(count):
        state, booking = book(state, now, terms)
        assert booking.granted
        bookings.append(booking)
    return state, bookings


def most_in_window(moments, window=WINDOW):
    """Return the largest number of moments within any window, its end excluded."""
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - window:
            first += 1
        most = max(most, last - first + 1)
    return most


steps = st.lists(
    st.one_of(
        st.tuples(st.just("book"), st.integers(0, 3 * SECOND)),
        st.tuples(st.just("fine"), st.integers(0, SECOND), st.integers(-1, 20), st.integers(-1, 2 * SECOND)),
        st.tuples(st.just("refused"), st.integers(0, SECOND), st.integers(-1, 5 * SECOND)),
    ),
    max_size=120,
)


def run(steps, terms=TERMS):
    """Do the steps; return the final state, all bookings, and when each left or will leave."""
    state, now, bookings, sent = State(), START, [], 0
    for kind, passed, *header in steps:
        now += passed
        # A request that is due has left; the others check their slot again when they wake up.
        while sent < len(bookings) and place(state, bookings[sent]) <= now:
            bookings[sent] = bookings[sent]._replace(at=place(state, bookings[sent]), moves=state.moves)
            sent += 1
        if kind == "book":
            state, booking = book(state, now, terms)
            bookings.append(booking)
        elif sent and kind == "fine":
            response = feedback(bookings[sent - 1], remaining=header[0], round_trip=header[1])
            state = reported(state, now, response)
        elif sent:
            state = reported(state, now, feedback(bookings[sent - 1], refused=True, retry_after=header[0]))
    moments = [booking.at for booking in bookings[:sent]]
    return state, bookings, moments + [place(state, booking) for booking in bookings[sent:]]


@settings(max_examples=300, deadline=None)
@given(steps)
def test_never_more_than_the_limit_within_a_window(steps):
    _, _, moments = run(steps)
    assert most_in_window(moments, WINDOW + LEAST_MARGIN) <= LIMIT


@settings(max_examples=300, deadline=None)
@given(steps)
def test_first_come_first_served_and_no_slot_lost_or_booked_twice(steps):
    _, bookings, moments = run(steps)
    assert moments == sorted(moments)
    assert [booking.number for booking in bookings] == list(range(1, len(bookings) + 1))


@settings(max_examples=200, deadline=None)
@given(steps)
def test_the_state_holds_where_the_newest_slots_are(steps):
    state, _, moments = run(steps)
    assert list(state.slots) == moments[-len(state.slots) :] or not moments
    assert len(state.slots) <= 3 * LIMIT


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(1, 400 * SECOND))
def test_a_clock_that_goes_back_keeps_order_and_distances(steps, back):
    state, _, _ = run(steps)
    now = state.seen - back
    advanced = advance(state, now)
    assert advanced.seen == now
    pairs = list(zip(state.slots, advanced.slots, strict=True))
    assert all(before - after == back for before, after in pairs)
    _, booking = book(state, now, TERMS)
    assert booking.wait <= max(state.slots, default=0) - state.seen + WINDOW + WIDE_MARGIN + LONGEST_PAUSE


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, WHOLE))
def test_a_share_is_never_exceeded(count, share):
    terms = Terms(share=share, max_wait=10**15)
    _, bookings = book_many(State(), START, count, terms)
    moments = [booking.at for booking in bookings]
    fraction = LIMIT * share / WHOLE
    assert most_in_window(moments) <= max(1, int(fraction))
    if fraction < 1 and count > 1:
        assert moments[1] - moments[0] >= WINDOW / fraction - 1


def test_an_idle_key_lets_a_burst_go_at_once():
    _, bookings = book_many(State(), START, LIMIT)
    assert {booking.wait for booking in bookings} == {0}


def test_the_slot_after_a_burst_waits_for_window_and_margin():
    _, bookings = book_many(State(), START, LIMIT + 1)
    assert WINDOW + MARGIN <= bookings[-1].wait <= WINDOW + MARGIN + 10_000


def test_under_load_a_burst_becomes_an_even_pace():
    _, bookings = book_many(State(), START, 10_000)
    moments = [booking.at for booking in bookings]
    gaps = [after - before for before, after in itertools.pairwise(moments[-LIMIT:])]
    assert min(gaps) > 100_000


def test_four_hundred_requests_lose_less_than_four_percent():
    _, bookings = book_many(State(), START, 400)
    assert bookings[-1].wait < 400 / 10 / 0.96 * SECOND - 300_000


def test_too_long_a_wait_books_nothing():
    state, _ = book_many(State(), START, LIMIT)
    after, booking = book(state, START, Terms(max_wait=SECOND))
    assert not booking.granted
    assert booking.wait > WINDOW
    assert (after.booked, after.slots) == (state.booked, state.slots)


def test_the_requests_ahead_are_counted():
    state, bookings = book_many(State(), START, 50)
    assert [booking.ahead for booking in bookings[:20]] == [0] * 20
    assert bookings[-1].ahead == 29
    state, bookings = book_many(state, START, 400)
    assert bookings[-1].ahead == pytest.approx(429, abs=25)
    assert waiting(state) == pytest.approx(430, abs=25)


def test_a_429_moves_every_booked_slot():
    state, bookings = book_many(State(), START, 45)
    now = START + SECOND
    state = reported(state, now, feedback(bookings[0], refused=True, retry_after=3 * SECOND))
    moved = [place(state, booking) for booking in bookings[20:]]
    assert moved[0] == now + 3 * SECOND
    assert all(after - before >= 100_000 for before, after in itertools.pairwise(moved))
    _, late = book(state, now, TERMS)
    assert late.at >= moved[-1]


def test_a_429_moves_every_slot_of_a_long_queue():
    state, bookings = book_many(State(), START, 1_000)
    now = START + 10 * SECOND
    sent = [booking for booking in bookings if booking.at <= now]
    pending = bookings[len(sent) :]
    state = reported(state, now, feedback(sent[-1], refused=True, retry_after=2 * SECOND))
    moved = [place(state, booking) for booking in pending]
    assert min(moved) >= now + 2 * SECOND
    assert most_in_window(moved) <= LIMIT
    assert list(state.slots) == moved[-len(state.slots) :]


def test_a_sleeper_that_missed_a_move_follows_both():
    state, bookings = book_many(State(), START, 60)
    for at in (START + SECOND, START + 6 * SECOND):
        response = bookings[0]._replace(at=at)
        state = reported(state, at, feedback(response, refused=True, retry_after=2 * SECOND))
    moved = [place(state, booking) for booking in bookings[20:]]
    pending = [moment for moment in moved if moment > state.seen]
    assert min(pending) >= START + 8 * SECOND
    assert moved == sorted(moved)
    assert state.slots[-1] == moved[-1]


def test_a_sleeper_that_missed_many_moves_is_where_the_state_says():
    state, bookings = book_many(State(), START, 50)
    now = START
    for passed, retry_after in ((300_000, 6 * SECOND), (6_050_000, 10_000), (200_000, 0), (90_000, 20_000)):
        now += passed
        response = bookings[0]._replace(at=now)
        state = reported(state, now, feedback(response, refused=True, retry_after=retry_after))
    pending = [moment for booking in bookings if (moment := place(state, booking)) > max(now, state.pause)]
    assert len(pending) > 20
    assert pending[0] < now + SECOND
    assert list(state.slots[-len(pending) :]) == pending


def test_echoes_of_one_refusal_count_once_and_only_extend_the_pause():
    state, bookings = book_many(State(), START, 20)
    first = reported(state, START + 300_000, feedback(bookings[0], refused=True, retry_after=2 * SECOND))
    state = first
    for booking in bookings[1:]:
        state = reported(state, START + 350_000, feedback(booking, refused=True, retry_after=SECOND))
    assert state.pause == first.pause
    assert REFUSED - WHOLE < state.other_clients <= REFUSED
    state = reported(state, START + 400_000, feedback(bookings[3], refused=True, retry_after=2 * SECOND))
    assert state.pause == START + 2_400_000


def test_a_refusal_takes_off_the_limit_and_the_limit_comes_back():
    state, bookings = book_many(State(), START, 1)
    state = reported(state, START, feedback(bookings[0], refused=True, retry_after=0))
    assert room(state)[0] == LIMIT - REFUSED // WHOLE
    assert room(advance(state, START + 13 * SECOND))[0] == LIMIT


def test_an_unexplained_refusal_makes_the_margin_wide_for_a_while():
    state, bookings = book_many(State(), START, 1)
    state = reported(state, START, feedback(bookings[0], refused=True, retry_after=0))
    assert margin(state) == WIDE_MARGIN
    assert margin(advance(state, START + WIDE_FOR)) == MARGIN


def test_a_refusal_that_other_clients_explain_leaves_the_margin():
    state, bookings = book_many(State(), START, 1)
    state = reported(state, START, feedback(bookings[0], remaining=10))
    state = reported(state, START, feedback(bookings[0], refused=True, retry_after=0))
    assert margin(state) == MARGIN


@pytest.mark.parametrize("retry_after", [-1, 86_400 * SECOND])
def test_a_missing_or_absurd_wait_pauses_for_a_sensible_time(retry_after):
    state, bookings = book_many(State(), START, 1)
    state = reported(state, START, feedback(bookings[0], refused=True, retry_after=retry_after))
    assert state.pause - START == (WINDOW if retry_after < 0 else LONGEST_PAUSE)


def test_use_by_other_clients_lowers_the_capacity_for_a_while():
    state, bookings = book_many(State(), START, 5)
    state = reported(state, START, feedback(bookings[4], limit=20, remaining=20 - 5 - 6))
    assert room(state)[0] == (20 - 6 - HEADROOM) // 2
    for passed in range(120):
        state = advance(state, START + passed * SECOND)
    assert room(state)[0] == 20


def beside_others(left, count=1):
    """A state to which other clients leave so much, and the bookings of requests that nothing overtakes."""
    state, bookings = book_many(State(seen=START, other_clients=round((LIMIT - left) * WHOLE)), START, count)
    return state, [booking._replace(most=booking.crowd) for booking in bookings]


def test_more_use_by_known_other_clients_is_taken_off_the_limit_and_less_is_not_added():
    state, (first,) = beside_others(left=12)
    state = reported(state, START, feedback(first, remaining=20 - 1 - 10))
    assert room(state)[0] == 20 - 10 - HEADROOM
    state = reported(state, START, feedback(first, remaining=20 - 1 - 2))
    assert room(state)[0] == 20 - 10 - HEADROOM


@pytest.mark.parametrize("left", [16, 4, 1.05])
def test_a_response_that_leaves_no_room_beside_other_clients_takes_a_tenth_once(left):
    state, (first,) = beside_others(left)
    # All others but one are ours, so only the lack of room slows down.
    full = feedback(first._replace(most=LIMIT - 1, crowd=LIMIT - 1), remaining=0)
    state = reported(state, START, full)
    assert left_to_us(state) == pytest.approx(max(left * 0.9, 1) * WHOLE)
    echo = full._replace(booking=full.booking._replace(at=START - 1))
    assert reported(state, START, echo) == state


def test_a_response_that_leaves_no_room_moves_what_waits():
    state, bookings = beside_others(left=10, count=30)
    state = reported(state, START + 1, feedback(bookings[0], remaining=4))
    assert room(state)[0] == 4
    moved = [place(state, booking) for booking in bookings[1:]]
    assert min(after - before for before, after in itertools.pairwise(moved[1:])) >= (WINDOW + MARGIN) // 4


def test_beside_other_clients_every_refusal_takes_a_third_down_to_a_floor():
    state, lefts = State(other_clients=10 * WHOLE), [10 * WHOLE]
    for round_ in range(20):
        now = START + round_ * 60
        state = state._replace(seen=now)
        booking = Booking(True, 0, state.pause, 0, 0, state.booked, 0, 20, 20)
        state = reported(state, now, feedback(booking, refused=True, retry_after=0))
        lefts.append(left_to_us(state))
    assert all(
        after == pytest.approx(before * 0.7, rel=1e-3) or after == LEAST
        for before, after in itertools.pairwise(lefts)
    )
    assert lefts[-1] == LEAST


def test_what_was_taken_off_returns_more_slowly_the_less_is_left():
    for left in (10, 1):
        state = State(seen=START, other_clients=(20 - left) * WHOLE)
        after = advance(state, START + 6 * SECOND)
        assert left_to_us(after) == pytest.approx(left * 1.1 * WHOLE)


def test_a_new_budget_sends_two_requests_before_the_rest_of_a_burst():
    _, bookings = book_many(State(other_clients=PERHAPS), START, LIMIT + 1)
    waits = [booking.wait for booking in bookings]
    assert waits[:3] == [0, PROBE, 2 * PROBE]
    assert set(waits[3:LIMIT]) == {2 * PROBE}
    assert waits[LIMIT] >= WINDOW + MARGIN


def test_a_share_of_the_key_needs_no_probes():
    _, bookings = book_many(State(other_clients=PERHAPS), START, 5, Terms(share=WHOLE // 4))
    assert {booking.wait for booking in bookings} == {0}


def test_a_budget_that_proved_to_be_alone_bursts_at_once_from_then_on():
    state, (first, second, *_) = book_many(State(other_clients=PERHAPS), START, 20)
    state = reported(state, START + 250_000, feedback(first, remaining=19))
    assert state.other_clients == PERHAPS, "the first arrival of many sees no other"
    state = reported(state, START + 600_000, feedback(second, remaining=18))
    assert state.other_clients == 0
    _, bookings = book_many(state, START + 60 * SECOND, LIMIT)
    assert {booking.wait for booking in bookings} == {0}


def test_a_probe_that_meets_one_other_client_spreads_the_burst_that_waits():
    state, bookings = book_many(State(other_clients=PERHAPS), START, 200)
    state = reported(state, START + 250_000, feedback(bookings[0], remaining=18))
    moved = [place(state, booking) for booking in bookings[2:]]
    assert (
        min(after - before for before, after in itertools.pairwise(moved)) >= 2 * (WINDOW + MARGIN) // LIMIT
    )


def test_after_other_clients_a_burst_begins_with_probes_again():
    state = advance(State(seen=START, other_clients=5 * WHOLE), START + 3_600 * SECOND)
    assert room(state)[0] == LIMIT
    _, bookings = book_many(state, state.seen, LIMIT)
    assert [booking.wait for booking in bookings[:3]] == [0, PROBE, 2 * PROBE]


def test_our_own_requests_do_not_count_as_other_clients():
    state, bookings = book_many(State(), START, 20)
    for used, booking in enumerate(reversed(bookings), 1):
        state = reported(state, START + 300_000, feedback(booking, limit=20, remaining=20 - used))
    assert state.other_clients == 0


def test_one_late_packet_does_not_count_as_another_client():
    state, bookings = book_many(State(), START, 5)
    assert reported(state, START, feedback(bookings[4], limit=20, remaining=14)).other_clients == 0


def test_the_other_shares_do_not_count_as_other_clients():
    state, bookings = book_many(State(), START, 5, Terms(share=WHOLE // 4))
    response = feedback(bookings[4], limit=20, remaining=0, share=WHOLE // 4)
    assert reported(state, START, response).other_clients == 0


def test_beside_other_clients_requests_are_paced_at_once():
    state, bookings = book_many(State(), START, 5)
    state = reported(state, START, feedback(bookings[4], limit=20, remaining=5))
    _, bookings = book_many(state, START, 20)
    gaps = [after.at - before.at for before, after in itertools.pairwise(bookings[5:])]
    assert min(gaps) > 100_000


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_an_announced_limit_is_followed(limit):
    state, bookings = book_many(State(), START, 1)
    state = reported(state, START, feedback(bookings[0], limit=limit))
    _, bookings = book_many(state, START + 10 * SECOND, 100)
    assert most_in_window([booking.at for booking in bookings]) == limit


def test_an_absurd_limit_is_followed_up_to_a_maximum():
    state, bookings = book_many(State(), START, 1)
    state = reported(state, START, feedback(bookings[0], limit=1_000_000))
    state, _ = book_many(state, START, 10_000)
    assert state.limit == MAX_LIMIT
    assert len(dump(state)) < 16_000


def reading(state, fastest, slowest):
    booking = Booking(True, 0, START, 0, 0, state.booked, 0, 1, 20)
    for count in range(READING):
        trip = fastest + (slowest - fastest) * count // (READING - 1)
        state = reported(state, START, feedback(booking, round_trip=trip))
    return state


def test_regular_round_trips_narrow_the_margin():
    state = reading(State(), 240_000, 260_000)
    assert LEAST_MARGIN <= margin(state) <= 40_000


def test_irregular_round_trips_leave_the_margin():
    assert margin(reading(State(), 150_000, 350_000)) == MARGIN


def test_the_first_late_response_widens_the_margin_at_once_and_for_some_readings():
    state = reading(State(), 240_000, 260_000)
    booking = Booking(True, 0, START, 0, 0, state.booked, 0, 1, 20)
    state = reported(state, START, feedback(booking, round_trip=250_000))
    state = reported(state, START, feedback(booking, round_trip=600_000))
    assert margin(state) == MARGIN
    for _ in range(3):
        state = reading(state, 240_000, 260_000)
        assert margin(state) == MARGIN
    for _ in range(12):
        state = reading(state, 240_000, 260_000)
    assert margin(state) <= 40_000


def test_slots_a_period_after_a_late_departure_keep_their_distance_from_it():
    state, bookings = book_many(State(), START, 20)
    late = 80_000
    state = reported(state, START + SECOND, feedback(bookings[7], round_trip=500_000, late=late))
    _, later = book_many(state, START + SECOND, 20)
    assert later[6].at - bookings[6].at < WINDOW + MARGIN + late
    assert later[7].at - (bookings[7].at + late) >= WINDOW + MARGIN


def test_a_timer_that_is_a_little_late_costs_nothing():
    state, bookings = book_many(State(), START, 20)
    response = reported(state, START + SECOND, feedback(bookings[7], late=5_000))
    assert response.slots == state.slots


def test_a_late_departure_in_a_long_queue_keeps_the_order():
    state, bookings = book_many(State(), START, 500)
    for booking in (bookings[0], bookings[480], bookings[499]):
        state = reported(state, START + SECOND, feedback(booking, late=30_000_000))
        assert list(state.slots) == sorted(state.slots)


def test_a_budget_without_credit_starts_at_an_even_pace():
    _, bookings = book_many(without_credit(State(), START), START, 25)
    gaps = [after.at - before.at for before, after in itertools.pairwise(bookings)]
    assert min(gaps) > 100_000


@settings(max_examples=100, deadline=None)
@given(steps)
def test_a_written_state_is_read_back_the_same(steps):
    state, _, _ = run(steps)
    assert load(dump(state)) == state


@pytest.mark.parametrize(
    "line",
    [
        "", "2", "2 x", "nonsense",
        "3 0 0 20 " + "0 " * 13,  # a newer format
        "1 0 20 " + "0 " * 13,  # an older one
        "2 " + "0 " * 16,  # no limit
        "2 0 0 20 " + "0 " * 13 + "5 3",  # slots that are not in order
    ],
)  # fmt: skip
def test_a_line_of_another_format_is_not_a_state(line):
    with pytest.raises(ValueError, match="."):
        load(line.strip())


def test_a_slot_of_another_epoch_is_void():
    state, bookings = book_many(State(epoch=1), START, 25)
    assert place(state, bookings[-1]) == bookings[-1].at
    after, _ = book_many(State(epoch=2), START, 25)
    assert place(after, bookings[-1]) is None


def test_feedback_of_another_epoch_teaches_only_what_needs_no_slot_number():
    _, (*_, old) = book_many(State(epoch=1), START, 5)
    long_ago = tuple(START - 60 * SECOND + count for count in range(LIMIT))
    state, _ = book_many(State(epoch=2, booked=LIMIT, slots=long_ago), START, 6)
    for response in (feedback(old, remaining=0), feedback(old, late=SECOND)):
        assert reported(state, START, response) == state
        current = response._replace(booking=old._replace(epoch=2, number=LIMIT + 5))
        assert reported(state, START, current) != state
    state, _ = book_many(state, START, 19)
    measured = reported(state, START, feedback(old, limit=7, round_trip=250_000))
    assert (measured.limit, measured.responses, measured.fastest) == (7, 1, 250_000)
    refused, unexplained = report(state, START, feedback(old, refused=True, retry_after=3 * SECOND))
    assert refused.pause == START + 3 * SECOND
    assert refused.slots[-5] == refused.pause
    assert not unexplained, "the loss of the state explains it"
    assert margin(refused) == MARGIN


def test_what_was_sent_before_the_state_was_lost_does_not_look_like_other_clients():
    _, (*_, old) = book_many(State(epoch=1), START, LIMIT)
    now = START + SECOND
    state, (first, *_) = book_many(State(epoch=2, other_clients=PERHAPS), now, 3)
    state = reported(state, now + 100_000, feedback(old, remaining=0))
    state, (later, *_, last) = book_many(state, now + 200_000, LIMIT)
    assert last.at - now > WINDOW - MARGIN, "the requests that were forgotten still count"
    for booking in (first, later):
        state = reported(state, now + 400_000, feedback(booking, remaining=0))
    assert room(state)[0] == LIMIT


def test_a_refusal_means_other_clients_whatever_the_headers_said_before():
    state, (first, *_) = book_many(State(), START, 20)
    assert report(state, START, feedback(first, refused=True))[1]
    known = reported(state, START, feedback(first, remaining=10))
    assert report(known, START, feedback(first, refused=True))[1]
    assert not report(state, START, feedback(first, remaining=0))[1]
    assert not report(state, START, feedback(first._replace(epoch=2), refused=True))[1]


def test_a_refusal_that_its_headers_explain_leaves_the_margin():
    state, (first, *_) = book_many(State(), START, 3)
    state = reported(state, START, feedback(first, refused=True, remaining=0))
    assert margin(state) == MARGIN
    assert left_to_us(state) < WHOLE


def test_only_a_repeated_pause_is_longer_by_the_jitter():
    state, (first, echo, *_) = book_many(State(), START, 20)
    refusal = {"refused": True, "retry_after": 2 * SECOND}
    state = reported(state, START, feedback(first, **refusal)._replace(jitter=700_000))
    state = reported(state, START, feedback(echo, **refusal)._replace(jitter=700_000))
    assert state.pause == START + 2 * SECOND
    state, again = book(state, START, TERMS)
    state = reported(state, again.at, feedback(again, **refusal)._replace(jitter=700_000))
    assert state.pause == again.at + 2 * SECOND + 700_000


def everything(programs):
    """All orders in which the steps of programs can run, each program in its own order."""
    if not any(programs):
        yield []
        return
    for index, program in enumerate(programs):
        if program:
            rest = [*programs[:index], program[1:], *programs[index + 1 :]]
            for order in everything(rest):
                yield [(index, program[0]), *order]


@pytest.mark.parametrize("refused", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("tick", [0, 60_000, 1_100_000])
def test_two_bookers_in_every_order(refused, tick):
    """
    Two bookers at a full budget, in all 3,432 orders of their steps.

    Whatever the order: no two share a slot, no request leaves too close behind the limit before it, and one
    that checks its slot after a refusal does not leave within the pause.
    """
    program = ("book", "wake", "leave", "report", "book", "wake", "leave")
    full, before = book_many(State(), START, LIMIT - 1)
    for order in everything([program, program]):
        state, now = full, START + SECOND
        mine: list[Booking | None] = [None, None]
        times_reported = [0, 0]
        left: list[int] = [booking.at for booking in before]
        numbers = []
        for who, step in order:
            now += tick
            booking = mine[who]
            if step == "book":
                state, booking = book(state, now, TERMS)
                numbers.append(booking.number)
                assert booking.at >= state.pause or booking.at >= now
            elif step == "wake":
                booking = booking._replace(at=place(state, booking), moves=state.moves)
                assert booking.at >= state.pause or booking.at <= now or booking.wait == 0
            elif step == "leave":
                now = max(now, booking.at)
                left.append(booking.at)
            else:
                times_reported[who] += 1
                refuse = who in refused and times_reported[who] == 1
                state = reported(state, now, feedback(booking, refused=refuse, retry_after=SECOND))
            mine[who] = booking
        assert sorted(numbers) == list(range(LIMIT, LIMIT + 4))
        assert most_in_window(left) <= LIMIT
