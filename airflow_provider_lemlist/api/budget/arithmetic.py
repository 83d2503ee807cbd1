# SPDX-License-Identifier: Apache-2.0
"""
Which moment the next request gets, and what an answer teaches. Pure: no clock, no store, no import of ours.

    book(state, now, terms)  -> state, Booking     the next free slot
    hear(state, now, answer) -> state              a refusal moves all slots, a stranger makes us book fewer
    place(state, booking)    -> moment             where a slot lies after all moves since it was booked

A slot lies at least ``window + margin`` after the slot ``capacity`` places before it, and never before the
one before it. A key that was idle therefore lets a burst go at once. Under load the slots of a burst return
period by period, a little further apart each time, until they are evenly paced: late packets find room then.

All times are whole microseconds on the clock of the store, so that ``booking.lua``, the same arithmetic
inside Redis, gives the same numbers to the last digit. Whoever changes one changes the other; a test
compares them.
"""

from __future__ import annotations

from typing import NamedTuple

MILLISECOND = 1_000
SECOND = 1_000_000
#: Parts of a limit are counted in millionths.
WHOLE = 1_000_000

#: lemlist's limit: 20 requests per 2 seconds. An announced limit replaces the number, up to ``MOST``.
LIMIT = 20
WINDOW = 2 * SECOND
MOST = 200

#: How much longer than the window we take for the same number of requests. It has to cover the range of the
#: one-way delay, 100 ms for 250 +- 100 ms there and back, and the lateness of timers.
MARGIN = 130 * MILLISECOND
#: The margin for ``WARY_FOR`` after a refusal that nobody else's use of the key explains.
WARY_MARGIN = 180 * MILLISECOND
WARY_FOR = 300 * SECOND
#: Where round trips are regular the margin narrows to their range and ``SLACK``, not below this.
LEAST_MARGIN = 25 * MILLISECOND
SLACK = 15 * MILLISECOND
#: So many answers make one reading of the range.
READING = 50

#: A request may leave so much after its slot before that counts: a busy machine wakes its sleepers late.
TOLERATED = 10 * MILLISECOND

#: How much further apart the slots of a burst lie each time they return.
SPREAD = 5 * MILLISECOND

#: A refusal takes so much off the limit, ...
REFUSED = 3 * WHOLE
#: ... and what others use is forgotten at one request in so many seconds.
FORGET = 4
#: What others use is seen late and dimly: so many requests more are left to them.
HEADROOM = 1

#: Slots kept, in limits: those that count, and a queue of ordinary length behind them.
KEPT = 3

#: No pause of all users of the key is longer, whatever a header says.
LONGEST_PAUSE = 60 * SECOND


class State(NamedTuple):
    """All that the store keeps of one key."""

    #: The store's clock when this was written.
    seen: int = 0
    limit: int = LIMIT
    #: End of the last pause of all users of the key.
    pause: int = 0
    #: What others use of the limit.
    others: int = 0
    #: Until when the margin is wide.
    wary: int = 0
    #: The range of the round trips, -1 while unknown; then the reading of it that is being taken.
    jitter: int = -1
    answers: int = 0
    fastest: int = 0
    slowest: int = 0
    #: How often the waiting slots were moved, and the last move: slot number n lies not before
    #: ``move_to + (n - move_first) * move_pace``, which concerns slots up to number ``move_last``.
    moves: int = 0
    move_first: int = 0
    move_last: int = 0
    move_to: int = 0
    move_pace: int = 0
    #: How many slots were booked, which is the number of the newest.
    booked: int = 0
    #: The newest slots, ``KEPT`` times the limit, in order.
    slots: tuple[int, ...] = ()


class Terms(NamedTuple):
    """What one user of the budget brings along."""

    #: The part of the limit that is ours.
    share: int = WHOLE
    max_wait: int = 300 * SECOND


class Booking(NamedTuple):
    """The slot of one request; not ``granted``, and not booked, when the wait would be too long."""

    granted: bool
    at: int
    wait: int
    #: How many wait before this one; an estimate when they are many.
    ahead: int
    number: int
    #: How often slots had been moved before.
    moves: int
    #: Slots that the server may still count when this request arrives, itself included.
    crowd: int
    capacity: int


class Answer(NamedTuple):
    """What an answer says; -1 where it says nothing."""

    booking: Booking
    refused: bool
    limit: int
    remaining: int
    retry_after: int
    round_trip: int
    #: How long after its slot the request left.
    late: int = 0
    share: int = WHOLE


def book(state: State, now: int, terms: Terms) -> tuple[State, Booking]:
    """Give the next free slot, or tell how long the wait would be."""
    state = settle(state, now)
    capacity, period = room(state, terms.share)
    slots = state.slots
    at = max(now, state.pause, *slots[-1:])
    if len(slots) >= capacity:
        free = slots[-capacity] + period
        even = slots[-1] + period // capacity
        # A burst is blind to a stranger, who comes after it: where there is one, pace at once.
        at = max(at, free, even if state.others else min(even, free + SPREAD))
    booking = Booking(
        granted=at - now <= terms.max_wait,
        at=at,
        wait=at - now,
        ahead=waiting(state),
        number=state.booked + 1,
        moves=state.moves,
        crowd=1 + sum(slot > at - WINDOW - MARGIN for slot in slots),
        capacity=capacity,
    )
    if booking.granted:
        state = state._replace(booked=booking.number, slots=(*slots, at)[-KEPT * state.limit :])
    return state, booking


def hear(state: State, now: int, answer: Answer) -> State:
    """Learn from an answer."""
    state = settle(state, now)
    if answer.limit > 0:
        state = state._replace(limit=min(answer.limit, MOST))
    if answer.late > TOLERATED:
        state = _left_late(state, answer)
    if answer.refused:
        return _refused(state, now, answer)
    state = _time(state, answer.round_trip)
    # With a share of the key, the other shares' use looks like a stranger's.
    return _notice_others(state, answer) if answer.remaining >= 0 and answer.share == WHOLE else state


def place(state: State, booking: Booking) -> int:
    """Give the moment of a slot after all the moves since it was booked."""
    # Nobody leaves within a pause, not even who was due when it began.
    at = max(booking.at, state.pause)
    if booking.moves == state.moves:
        return at
    return max(at, state.move_to + (booking.number - state.move_first) * state.move_pace)


def settle(state: State, now: int) -> State:
    """
    Bring a state to the present.

    A clock that went back takes everything along: the order and the distances of the slots stay.
    """
    passed = now - state.seen
    if passed >= 0:
        return state._replace(seen=now, others=max(0, state.others - passed // FORGET))
    return state._replace(
        seen=now,
        pause=state.pause + passed,
        wary=state.wary + passed,
        move_to=state.move_to + passed,
        slots=tuple(slot + passed for slot in state.slots),
    )


def room(state: State, share: int = WHOLE) -> tuple[int, int]:
    """Give how many requests may go per period now, and how long a period is."""
    period = WINDOW + margin(state)
    ours = max(WHOLE, state.limit * WHOLE - state.others) * share // WHOLE
    if ours >= WHOLE:
        return ours // WHOLE, period
    # Less than one request in a window: one in a period that is longer by as much.
    return 1, period * WHOLE // ours


def margin(state: State) -> int:
    """Give how much longer than the window a period has to be."""
    if state.seen < state.wary:
        return WARY_MARGIN
    if state.jitter < 0:
        return MARGIN
    jitter = max(state.jitter, state.slowest - state.fastest)
    return min(max(jitter + SLACK, LEAST_MARGIN), MARGIN)


def waiting(state: State) -> int:
    """Count the slots that lie ahead; of a long queue only the end is known, the rest is estimated."""
    _, period = room(state)
    return _count_waiting(state, period // state.limit, 0)


def without_credit(now: int) -> State:
    """Give a state in which the limit has just been used: who cannot know starts at an even pace."""
    pace = (WINDOW + MARGIN) // LIMIT
    return State(
        seen=now, booked=LIMIT, slots=tuple(now - behind * pace for behind in reversed(range(LIMIT)))
    )


def _refused(state: State, now: int, answer: Answer) -> State:
    if answer.booking.at >= state.pause:
        # Sent after the last pause, hence not an echo of the refusal that began it.
        unexplained = state.others == 0
        state = state._replace(
            others=min(state.others + REFUSED, state.limit * WHOLE),
            wary=now + WARY_FOR if unexplained else state.wary,
        )
    until = now + min(answer.retry_after if answer.retry_after >= 0 else WINDOW, LONGEST_PAUSE)
    return _move(state._replace(pause=until), answer.share) if until > state.pause else state


def _move(state: State, share: int) -> State:
    """Move the slots that wait: the first of them to the end of the pause, the others evenly behind it."""
    # Rather count too many, and leave a gap, than let two go at once.
    count = _count_waiting(state, (WINDOW + LEAST_MARGIN) // state.limit, state.limit)
    if not count:
        return state
    capacity, period = room(state, share)
    first, to, pace = state.booked - count + 1, state.pause, -(-period // capacity)
    if first <= state.move_last:
        # A sleeper that wakes sees the last move only, so that includes the one before.
        to = max(to, state.move_to + (first - state.move_first) * state.move_pace)
        pace = max(pace, state.move_pace)
    oldest = state.booked - len(state.slots) + 1
    return state._replace(
        moves=state.moves + 1,
        move_first=first,
        move_last=state.booked,
        move_to=to,
        move_pace=pace,
        slots=tuple(
            max(slot, to + (number - first) * pace) if slot > state.seen else slot
            for number, slot in enumerate(state.slots, oldest)
        ),
    )


def _count_waiting(state: State, pace: int, more: int) -> int:
    count = sum(slot > state.seen for slot in state.slots)
    if not count or count < len(state.slots):
        return count
    if state.booked - count < state.move_last:
        pace = max(pace, state.move_pace)
    return min(state.booked, count + (state.slots[0] - state.seen) // pace + more)


def _left_late(state: State, answer: Answer) -> State:
    """Let those who come a period after a request keep their distance from when it really left."""
    first = max(0, answer.booking.number - (state.booked - len(state.slots) + 1))
    left = answer.booking.at + answer.late
    slots = (*state.slots[:first], *(max(slot, left) for slot in state.slots[first:]))
    return state._replace(slots=slots)


def _time(state: State, round_trip: int) -> State:
    """Add a round trip to the reading of their range."""
    if round_trip < 0:
        return state
    state = state._replace(
        answers=state.answers + 1,
        fastest=min(state.fastest, round_trip) if state.answers else round_trip,
        slowest=max(state.slowest, round_trip) if state.answers else round_trip,
    )
    if state.answers < READING:
        return state
    # One late answer is remembered for some readings.
    jitter = max(state.slowest - state.fastest, state.jitter * 3 // 4)
    return state._replace(jitter=jitter, answers=0, fastest=0, slowest=0)


def _notice_others(state: State, answer: Answer) -> State:
    """Compare what the server counted with the most that may have been ours."""
    booking = answer.booking
    ours = booking.capacity
    later = state.booked - booking.number
    if 0 <= later <= len(state.slots):
        # Requests booked after this one may have overtaken it.
        late = max(MARGIN, answer.round_trip - state.fastest)
        overtaking = sum(slot <= booking.at + late for slot in state.slots[len(state.slots) - later :])
        ours = min(ours, booking.crowd + overtaking)
    strangers = state.limit - answer.remaining - ours
    # One more than expected may be a late packet, unless somebody else is known to be there.
    if strangers < (1 if state.others else 2):
        return state
    return state._replace(others=max(state.others, (strangers + HEADROOM) * WHOLE))


_NUMBERS = len(State._fields) - 1
#: Changes with the meaning of the numbers.
FORMAT = "1"


def dump(state: State) -> str:
    """Write a state as a line of numbers, which both Python and Lua read fast and exactly."""
    return " ".join(map(str, (FORMAT, *state[:_NUMBERS], *state.slots)))


def load(line: str) -> State:
    """
    Read what ``dump`` wrote.

    :raises ValueError: Somebody else wrote it.
    """
    form, *words = line.split(" ")
    numbers = [int(word) for word in words]
    if form != FORMAT or len(numbers) < _NUMBERS:
        raise ValueError("not a state of the rate budget")
    state = State._make([*numbers[:_NUMBERS], tuple(numbers[_NUMBERS:])])
    if not 0 < state.limit <= MOST or state.slots != tuple(sorted(state.slots)):
        raise ValueError("not a state of the rate budget")
    return state
