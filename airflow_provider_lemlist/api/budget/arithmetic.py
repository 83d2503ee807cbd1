# SPDX-License-Identifier: Apache-2.0
"""
Which slot the next request gets, and what a response changes. Pure: no clock, no store, no randomness.

A slot is at least ``window + margin`` after the slot ``capacity`` places before it, and never before the
previous one. A key that was idle therefore allows a burst at once. Under load the slots of a burst return
period by period, a little further apart each time, until they are evenly paced: late packets then find room.

Budgets that use one key without sharing a store find their parts of the limit by what the responses say. Each
slows down by a tenth when the others leave no room, by a third when it is refused, and speeds up slowly in
between; as every response counts alike, the one that sends most slows down most.

All times are whole microseconds on the clock of the store.
"""

from __future__ import annotations

from typing import NamedTuple

MILLISECOND = 1_000
SECOND = 1_000_000
#: Parts of a limit are counted in millionths.
WHOLE = 1_000_000

#: lemlist's limit: 20 requests per 2 seconds. An announced limit replaces the number, up to ``MAX_LIMIT``.
LIMIT = 20
WINDOW = 2 * SECOND
MAX_LIMIT = 200

#: How much longer than the window the same number of requests takes here. It has to cover the range of the
#: one-way delay, 100 ms for 250 +- 100 ms there and back, and the lateness of timers.
MARGIN = 130 * MILLISECOND
#: The margin for ``WIDE_FOR`` after a refusal that no known use by other clients explains.
WIDE_MARGIN = 180 * MILLISECOND
WIDE_FOR = 300 * SECOND
#: If round trips are regular, the margin narrows to their range plus ``SLACK``, but not below this.
LEAST_MARGIN = 25 * MILLISECOND
SLACK = 15 * MILLISECOND
#: The number of responses in one reading of the range.
READING = 50

#: A request may leave this late without consequences: a busy machine wakes its sleepers late.
TOLERATED = 10 * MILLISECOND

#: How much further apart the slots of a burst are each time they return.
SPREAD = 5 * MILLISECOND

#: A refusal that nothing explains takes this much off the limit.
REFUSED = 3 * WHOLE
#: Beside other clients, a refusal takes this part off what is left to us, ...
REFUSED_PART = 300_000
#: ... and a response that says that the limit is used up takes this one.
CROWDED_PART = 100_000
#: A response that shows nothing of them adds this part to what is left to us, or the second one while that is
#: less than a fifth of the limit; and it leaves at least one request in a window.
ABSENT_PART = 20_000
ABSENT_PART_IF_FEW = 200_000
#: Use by other clients is forgotten at one request in this many seconds, more slowly if they leave little:
#: many budgets together then speed up no faster than one.
FORGET = 3
#: Use by other clients is seen late and roughly: this many more requests are left to them.
HEADROOM = 1
#: The least that other clients leave to us: one request in 10 windows.
LEAST = WHOLE // 10

#: What other clients use if there may be some: no response has shown any yet, or they went.
PERHAPS = 1
#: The first slots of a burst are then so far apart: all others wait for what the responses to these say.
PROBES = 2
PROBE = 350 * MILLISECOND

#: Slots kept, in limits: those that count, and a queue of ordinary length behind them.
KEPT = 3

#: The longest pause of all clients before jitter, whatever a header says.
LONGEST_PAUSE = 60 * SECOND
#: A repeated pause is longer by a random time of up to this much, or up to the distance of two slots if that
#: is longer: budgets that do not share a store are refused at the same moment, and would otherwise return at
#: the same moment.
JITTER = WINDOW // 4


class State(NamedTuple):
    """All that the store keeps of one key."""

    #: Which life of the state this is: a random number of the store, new whenever the state was lost. Slot
    #: numbers and moves mean something only within one epoch.
    epoch: int = 0
    #: The store's clock when this was written.
    seen: int = 0
    limit: int = LIMIT
    #: End of the last pause of all clients of the budget.
    pause: int = 0
    #: What other clients of the key use of the limit; 0 only if it is known that there are none.
    other_clients: int = 0
    #: Until when the margin is wide.
    wide_until: int = 0
    #: The range of the round trips, -1 while unknown; then the reading in progress.
    jitter: int = -1
    responses: int = 0
    fastest: int = 0
    slowest: int = 0
    #: How often the waiting slots were moved, and the last move: slot number n is not before
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
    """The terms on which one caller books."""

    #: The part of the limit that is ours.
    share: int = WHOLE
    max_wait: int = 300 * SECOND


class Booking(NamedTuple):
    """The slot of one request; if not ``granted``, the wait would be too long and nothing was booked."""

    granted: bool
    epoch: int
    at: int
    wait: int
    #: How many requests wait before this one; an estimate when they are many.
    ahead: int
    number: int
    #: How often slots had been moved before.
    moves: int
    #: Slots that the server may still count when this request arrives, including itself.
    crowd: int
    #: The most that it may count if requests that were booked later arrive before.
    most: int


class Feedback(NamedTuple):
    """What a response says about the limit; negative where it says nothing."""

    booking: Booking
    refused: bool
    limit: int
    remaining: int
    retry_after: int
    round_trip: int
    #: How long after its slot the request left.
    late: int = 0
    share: int = WHOLE
    #: A random part of the longest jitter.
    jitter: int = 0


def book(state: State, now: int, terms: Terms) -> tuple[State, Booking]:
    """Book the next free slot, or return how long the wait would be."""
    state = advance(state, now)
    capacity, period = room(state, terms.share)
    slots = state.slots
    at = max(now, state.pause, *slots[-1:])
    if len(slots) >= capacity:
        free = slots[-capacity] + period
        at = max(at, free, min(slots[-1] + period // capacity, free + SPREAD))
    # A burst cannot react to other clients that follow it. With a share of the key, they are expected.
    probing = state.other_clients == PERHAPS and terms.share == WHOLE
    recent = sum(slot > at - period for slot in slots[-PROBES - 1 :])
    if slots and state.other_clients > PERHAPS:
        at = max(at, slots[-1] + period // capacity)
    elif probing and 0 < recent <= PROBES:
        at = max(at, slots[-1] + PROBE)
    crowd = 1 + sum(slot > at - WINDOW - MARGIN for slot in slots)
    booking = Booking(
        granted=at - now <= terms.max_wait,
        epoch=state.epoch,
        at=at,
        wait=at - now,
        ahead=waiting(state),
        number=state.booked + 1,
        moves=state.moves,
        crowd=crowd,
        # No other request follows a probe soon enough to overtake it.
        most=crowd if probing and recent < PROBES else capacity,
    )
    if booking.granted:
        state = state._replace(booked=booking.number, slots=(*slots, at)[-KEPT * state.limit :])
    return state, booking


def report(state: State, now: int, feedback: Feedback) -> tuple[State, bool]:
    """Apply the feedback of a response; also return whether other clients must have caused a refusal."""
    state = advance(state, now)
    # The slot numbers of another epoch mean nothing here.
    current = feedback.booking.epoch == state.epoch
    if not current and len(state.slots) < state.limit:
        # The state was lost, and with it what was sent just before: that was not sent by other clients.
        state = without_credit(state, now)._replace(other_clients=0)
    if feedback.limit > 0:
        state = state._replace(limit=min(feedback.limit, MAX_LIMIT))
    if current and feedback.late > TOLERATED:
        state = _left_late(state, feedback)
    known = state.other_clients > PERHAPS
    # With a share of the key, the use of the other shares looks like that of other clients.
    if current and feedback.remaining >= 0 and feedback.share == WHOLE:
        state = _notice_other_clients(state, feedback)
    if not feedback.refused:
        return _measure(state, feedback.round_trip), False
    # After a loss of the state, the slots that were forgotten explain the refusal.
    return _refused(state, now, feedback, repeated=known), current


def place(state: State, booking: Booking) -> int | None:
    """Return the moment of a slot after all moves since it was booked, None if its state was lost."""
    if booking.epoch != state.epoch:
        return None
    # No request leaves within a pause, even if it was due when the pause began.
    at = max(booking.at, state.pause)
    if booking.moves == state.moves:
        return at
    return max(at, state.move_to + (booking.number - state.move_first) * state.move_pace)


def advance(state: State, now: int) -> State:
    """
    Bring a state to the present.

    If the clock went back, everything goes back with it: the order and the distances of the slots stay.
    """
    passed = now - state.seen
    if passed >= 0:
        forgotten = passed * left_to_us(state) // (FORGET * state.limit * WHOLE)
        least = min(state.other_clients, PERHAPS)
        return state._replace(seen=now, other_clients=max(least, state.other_clients - forgotten))
    return state._replace(
        seen=now,
        pause=state.pause + passed,
        wide_until=state.wide_until + passed,
        move_to=state.move_to + passed,
        slots=tuple(slot + passed for slot in state.slots),
    )


def room(state: State, share: int = WHOLE) -> tuple[int, int]:
    """Return how many requests may go per period now, and how long a period is."""
    period = WINDOW + margin(state)
    ours = max(1, left_to_us(state) * share // WHOLE)
    if ours >= WHOLE:
        return ours // WHOLE, period
    # Less than one request in a window: one in a period that is longer by as much.
    return 1, period * WHOLE // ours


def left_to_us(state: State) -> int:
    """Return what other clients leave of the limit."""
    used = state.other_clients if state.other_clients > PERHAPS else 0
    return max(LEAST, state.limit * WHOLE - used)


def margin(state: State) -> int:
    """Return how much longer than the window a period has to be."""
    if state.seen < state.wide_until:
        return WIDE_MARGIN
    if state.jitter < 0:
        return MARGIN
    jitter = max(state.jitter, state.slowest - state.fastest)
    return min(max(jitter + SLACK, LEAST_MARGIN), MARGIN)


def waiting(state: State) -> int:
    """Count the slots in the future; only the end of a long queue is known, the rest is estimated."""
    _, period = room(state)
    return _count_waiting(state, period // state.limit, 0)


def without_credit(state: State, now: int) -> State:
    """Return a state before which the limit was used, for when its use so far is not known."""
    pace = (WINDOW + MARGIN) // state.limit
    first = min([now, *state.slots[:1]])
    used = tuple(first - behind * pace for behind in reversed(range(state.limit)))
    return state._replace(seen=now, slots=(*used, *state.slots)[-KEPT * state.limit :])


def _refused(state: State, now: int, feedback: Feedback, repeated: bool) -> State:
    pause = min(feedback.retry_after if feedback.retry_after >= 0 else WINDOW, LONGEST_PAUSE)
    # A request that was sent before the last pause only echoes the refusal that began the pause.
    if feedback.booking.at >= state.pause:
        if repeated:
            capacity, period = room(state, feedback.share)
            pause += feedback.jitter * max(JITTER, period // capacity) // JITTER
        if state.other_clients > PERHAPS:
            state = _slow_down(state, left_to_us(state) * REFUSED_PART // WHOLE)
        else:
            unexplained = feedback.booking.epoch == state.epoch
            state = _slow_down(state, REFUSED)
            state = state._replace(wide_until=now + WIDE_FOR if unexplained else state.wide_until)
    return _move(state, now + pause, feedback.share)


def _slow_down(state: State, less: int) -> State:
    """Leave so much more of the limit to other clients."""
    most = state.limit * WHOLE - LEAST
    return state._replace(other_clients=min(state.limit * WHOLE - left_to_us(state) + less, most))


def _speed_up(state: State) -> State:
    """Take back some of what other clients no longer use: the server has counted nothing of them."""
    before = left_to_us(state)
    part = ABSENT_PART_IF_FEW if before < state.limit * WHOLE // 5 else ABSENT_PART
    more = max(before * part // WHOLE, WHOLE - before)
    return state._replace(other_clients=max(min(state.other_clients, PERHAPS), state.other_clients - more))


def _move(state: State, pause: int, share: int) -> State:
    """
    Move the waiting slots if this pause is the longest.

    The first of them moves to the end of the pause, the others evenly behind it.
    """
    if pause <= state.pause:
        return state
    state = state._replace(pause=pause)
    # Rather count too many, and leave a gap, than let two go at once.
    count = _count_waiting(state, (WINDOW + LEAST_MARGIN) // state.limit, state.limit)
    if not count:
        return state
    capacity, period = room(state, share)
    first, to, pace = state.booked - count + 1, state.pause, -(-period // capacity)
    if first <= state.move_last:
        # A caller that wakes up sees the last move only, so that includes the one before.
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


def _left_late(state: State, feedback: Feedback) -> State:
    """Keep the slots a period after a request at their distance from when it really left."""
    first = max(0, feedback.booking.number - (state.booked - len(state.slots) + 1))
    left = feedback.booking.at + feedback.late
    slots = (*state.slots[:first], *(max(slot, left) for slot in state.slots[first:]))
    return state._replace(slots=slots)


def _measure(state: State, round_trip: int) -> State:
    """Add a round trip to the reading of their range."""
    if round_trip < 0:
        return state
    state = state._replace(
        responses=state.responses + 1,
        fastest=min(state.fastest, round_trip) if state.responses else round_trip,
        slowest=max(state.slowest, round_trip) if state.responses else round_trip,
    )
    if state.responses < READING:
        return state
    # One late response counts for some readings.
    jitter = max(state.slowest - state.fastest, state.jitter * 3 // 4)
    return state._replace(jitter=jitter, responses=0, fastest=0, slowest=0)


def _notice_other_clients(state: State, feedback: Feedback) -> State:
    """Compare what the server counted with the most that may have been ours."""
    booking = feedback.booking
    ours = booking.most
    later = state.booked - booking.number
    if 0 <= later <= len(state.slots):
        # Requests booked after this one may have overtaken it.
        late = max(MARGIN, feedback.round_trip - state.fastest)
        overtaking = sum(slot <= booking.at + late for slot in state.slots[len(state.slots) - later :])
        ours = min(ours, booking.crowd + overtaking)
    # A loss of the state that was noticed since then adds slots before it.
    ours = max(ours, sum(booking.at - WINDOW < slot <= booking.at for slot in state.slots))
    used = state.limit - feedback.remaining
    # The server does not count what it refuses.
    theirs = used - ours + feedback.refused
    # One more than expected may be a late packet, unless other clients may be there.
    if theirs < (1 if state.other_clients else 2):
        if state.other_clients == PERHAPS and 2 <= used == booking.crowd:
            return state._replace(other_clients=0)
        return state if used > booking.crowd or feedback.refused else _speed_up(state)
    before, left = left_to_us(state), (state.limit - theirs - HEADROOM) * WHOLE
    if state.other_clients <= PERHAPS:
        # They may have begun when we did, and use more soon.
        left //= 2
    # The less we send, the less we see of the others: leave more room to them then.
    crowded = feedback.remaining * before <= WHOLE
    if crowded and not feedback.refused and booking.at >= state.pause:
        left = min(left, before - before * CROWDED_PART // WHOLE)
    # Only a refusal leaves us less than one request in a window.
    left = max(left, WHOLE)
    if left >= before:
        return state
    state = _slow_down(state, before - left)
    # What waits has to slow down, too; after a refusal it is moved anyway.
    return state if feedback.refused else _move(state, state.seen, feedback.share)


_NUMBERS = len(State._fields) - 1
#: Changes with the meaning of the numbers.
FORMAT = "2"


def dump(state: State) -> str:
    """Write a state as a line of numbers."""
    return " ".join(map(str, (FORMAT, *state[:_NUMBERS], *state.slots)))


def load(line: str) -> State:
    """
    Read what ``dump`` wrote.

    :raises ValueError: The line is not of this format.
    """
    form, *words = line.split(" ")
    numbers = [int(word) for word in words]
    if form == FORMAT and len(numbers) >= _NUMBERS:
        state = State._make([*numbers[:_NUMBERS], tuple(numbers[_NUMBERS:])])
        if 0 < state.limit <= MAX_LIMIT and state.slots == tuple(sorted(state.slots)):
            return state
    raise ValueError("not a state of the rate budget")
