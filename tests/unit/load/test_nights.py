# SPDX-License-Identifier: Apache-2.0
"""
Nights in any order: what a campaign looks like after loads that were repeated, backfilled, killed and moved.

``Model`` says what the documents promise. Each story plays nights and what happens in lemlist between them,
and compares the campaign with the model after every load that has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lemlist import concurrency
from airflow_provider_lemlist.api.wire import CLOCK, Wire
from airflow_provider_lemlist.delivery.identity import identities, is_same
from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.ledger import ledger as ledger_module
from airflow_provider_lemlist.load import pool
from airflow_provider_lemlist.load.options import IfAddressChanged, IfMissing
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.undocumented import Undocumented

CREATE = "POST /campaigns/{campaignId}/leads/"

# --- People and their rows ----------------------------------------------------------------------------

#: What a person always has. Some have an address only in some nights, some change it.
Kind = Literal["address", "address and profile", "profile", "phone"]
HAS_ADDRESS = ("address", "address and profile")


class Row(NamedTuple):
    """
    One person in the source of one night.

    :param address: Which address the person has; None for none.
    :param broken: What is invalid in it.
    :param twice: Whether the source has the row twice.
    """

    number: int
    kind: Kind
    address: int | None
    plan: str
    job: str
    broken: Literal["", "zone", "address"] = ""
    twice: bool = False

    @property
    def who(self) -> Who:
        """The person; with another address it is another lead."""
        return Who(self.number, self.address or 0)

    def lead(self) -> dict[str, str]:
        lead = {"firstName": f"P{self.number}", "lastName": "Test", "plan": self.plan, "jobTitle": self.job}
        if self.address is not None:
            lead["email"] = f"p{self.number}.{self.address}@example.com"
        if self.kind in ("profile", "address and profile"):
            lead["linkedinUrl"] = f"https://www.linkedin.com/in/p{self.number}"
        if self.kind == "phone":
            lead["phone"] = f"+33 1 23 45 67 {self.number:02}"
        return lead

    def row(self, *, keyed: bool) -> dict[str, str]:
        """Return the row of the source."""
        row = self.lead()
        if self.broken == "zone":
            row["timezone"] = "Mars/Base"
        if self.broken == "address":
            row["email"] = "no address"
        return row | ({"customer_id": f"c{self.number}"} if keyed else {})

    def names_person(self, *, keyed: bool) -> bool:
        return keyed or self.broken != "address" or self.kind != "address"


class Who(NamedTuple):
    """Whom a lead stands for: a person, by one address."""

    number: int
    address: int


class Night(NamedTuple):
    day: int
    rows: tuple[Row, ...]

    @property
    def order(self) -> str:
        return f"{self.day:02}"


# --- What happens -------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """
    What goes wrong with an attempt at a load.

    :param kind: ``kill`` ends the process, ``stop`` stops the load, ``lose`` loses the response to a create.
    :param where: At which step: at a request, or when a file of the ledger is written.
    :param after: Whether the step has taken effect.
    """

    kind: Literal["kill", "stop", "lose"]
    where: Literal["request", "write"]
    number: int
    after: bool


class Run(NamedTuple):
    """
    One load of a night, repeated until it ends.

    :param late: Whether an attempt that failed is repeated only after the next load.
    """

    night: Night
    fault: Fault | None = None
    late: bool = False


class Happens(NamedTuple):
    """Something that people do in lemlist, with the lead of a row."""

    what: Literal["create", "delete", "unsubscribe", "pause", "edit"]
    row: Row


class LedgerIsLost(NamedTuple):
    pass


Step = Run | Happens | LedgerIsLost


class Policies(NamedTuple):
    if_exists: Literal["update", "skip"] = "update"
    if_missing: IfMissing = "keep"
    if_address_changed: IfAddressChanged = "skip"
    keyed: bool = False
    #: Whether the export of the campaign shows custom variables.
    shows_variables: bool = False


class Story(NamedTuple):
    policies: Policies
    nights: tuple[Night, ...]
    steps: tuple[Step, ...]


# --- What the documents promise -----------------------------------------------------------------------


@dataclass
class Lead:
    plan: str
    job: str
    has_address: bool = field(compare=False)  # depends on which of two nights created it
    status: str = "review"


@dataclass
class Model:
    """
    Who is in the campaign, with which values.

    :param leads: The campaign.
    :param settled: The newest night that settled each person whom the ledger knows.
    :param left: Whom a load has paused, unsubscribed or deleted because they were missing from the source.
    :param by_hand: Whose lead was created in lemlist, and not in a source since.
    :param address: With a key, the address of the person's last lead.
    :param suppressed: Whose profile or phone number is on lemlist's list of unsubscribed values.
    :param newest: The newest night that had anyone whom the ledger knows.
    """

    policies: Policies
    leads: dict[Who, Lead] = field(default_factory=dict)
    settled: dict[Who, str] = field(default_factory=dict)
    left: dict[Who, str] = field(default_factory=dict)
    by_hand: set[Who] = field(default_factory=set)
    address: dict[int, int] = field(default_factory=dict)
    suppressed: set[int] = field(default_factory=set)
    newest: str = ""

    def load(self, night: Night) -> None:
        """Apply one load that has ended."""
        is_older = self.newest > night.order
        named = {who for row in night.rows for who in self._row(row, night.order)}
        if named & self.settled.keys():
            self.newest = max(self.newest, night.order)
        nameless = [row for row in night.rows if not row.names_person(keyed=self.policies.keyed)]
        if is_older or not night.rows or nameless:
            return
        for who in self.settled.keys() - named - self.left.keys() - self.by_hand:
            lead = self.leads.get(who)
            if lead is None or lead.status == "unsubscribed" or self.policies.if_missing == "keep":
                continue
            self.settled[who] = night.order
            self.left[who] = self.policies.if_missing
            if self.policies.if_missing == "delete":
                del self.leads[who]
            elif self.policies.if_missing == "pause":
                lead.status = "paused"
            elif lead.has_address:
                lead.status = "unsubscribed"
            else:  # the person is unsubscribed everywhere, and the lead stays
                self.suppressed.add(who.number)

    def _row(self, row: Row, order: str) -> set[Who]:
        """Apply one row; return whom it names."""
        last = Who(row.number, self.address.get(row.number, row.who.address))
        if row.broken == "address" and row.names_person(keyed=self.policies.keyed):
            with_profile = {
                each for each in self.leads if each.number == row.number and row.kind != "address"
            }
            return with_profile | {last}
        who = row.who if row.who in self.leads else last
        if not row.broken and row.number in self.suppressed:
            is_replaced = (
                who in self.leads and who != row.who and self.policies.if_address_changed == "create"
            )
            return set() if is_replaced else {who}
        if row.broken or any(self.settled.get(each, "") > order for each in (row.who, last)):
            return {who}
        if who in self.leads and who != row.who and self.left.get(who) != "unsubscribe":
            return self._row_of_other_address(row, who, order)
        return self._row_of_person(row, who, order)

    def _row_of_person(self, row: Row, who: Who, order: str) -> set[Who]:
        lead, left = self.leads.get(who), self.left.get(who)
        is_new = left == "delete" or (lead is None and who not in self.settled)
        if (is_new or left == "pause") and self._is_older(order):
            return {who}
        if is_new:
            who = row.who
            self.leads[who] = Lead(row.plan, row.job, row.address is not None)
        elif lead is None or lead.status == "unsubscribed" or left == "unsubscribe":
            return self._settle(who, order)  # gone, and stays so
        else:
            if self.policies.if_exists == "update":
                lead.plan, lead.job = row.plan, row.job
            if left == "pause" and lead.status == "paused":
                lead.status = "review"
        self.left.pop(who, None)
        return self._settle(who, order)

    def _row_of_other_address(self, row: Row, who: Who, order: str) -> set[Who]:
        """Apply the row of a person of a key, whose lead has another address."""
        if self.leads[who].status == "unsubscribed":
            return self._settle(who, order)
        if self.left.get(who) == "pause" and self._is_older(order):
            return {who}
        if self.policies.if_address_changed == "skip":
            return self._settle(who, order)
        return set() if self._is_older(order) else self._row_of_person(row, row.who, order)

    def _is_older(self, order: str) -> bool:
        """Return whether a newer night says who is to be in the campaign."""
        return self.policies.if_missing != "keep" and self.newest > order

    def _settle(self, who: Who, order: str) -> set[Who]:
        self.settled[who] = order
        self.by_hand.discard(who)
        if self.policies.keyed:
            self.address[who.number] = who.address
        return {who}

    def lose_ledger(self) -> None:
        self.settled.clear()
        self.left.clear()
        self.by_hand.clear()
        self.address.clear()
        self.newest = ""

    def happen(self, step: Happens) -> bool:
        """Apply what people do in lemlist; return whether they can."""
        row, lead = step.row, self.leads.get(step.row.who)
        if step.what == "create":
            if lead or row.number in self.address or self.left.get(row.who) == "unsubscribe":
                return False
            self.left.pop(row.who, None)
            self.leads[row.who] = Lead(row.plan, row.job, row.address is not None)
            self.by_hand.add(row.who)
            return True
        if lead is None or lead.status == "unsubscribed":
            return False
        if step.what == "delete":
            del self.leads[row.who]
        elif step.what == "edit":
            lead.job = row.job
        else:
            lead.status = "paused" if step.what == "pause" else "unsubscribed"
        return True


# --- The real thing -----------------------------------------------------------------------------------


class DiedError(Exception):
    """The process is dead: it sends nothing and writes nothing."""


class NoLimit:
    """A budget that makes no one wait."""

    def book(self) -> SimpleNamespace:
        return SimpleNamespace(wait=0.0, ahead=0)

    def wait(self, slot: object, **options: Any) -> None:
        pass

    def report(self, slot: object, **feedback: Any) -> None:
        pass

    def state(self) -> dict[str, float]:
        return {"capacity": 20, "period": 2}


class Process:
    """The process of an attempt: counts its requests and writes, and dies or is stopped at one of them."""

    def __init__(self) -> None:
        self.start(None)

    def start(self, fault: Fault | None, stop: Callable[[], None] = lambda: None) -> None:
        self.steps: Counter[str] = Counter()
        self.dead = False
        self._fault = fault if fault and fault.kind != "lose" else None
        self._stop = stop

    def takes_step(self, where: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that counts as a step of the process."""

        def take(*args: Any, **kwargs: Any) -> Any:
            self._check_dead()
            self.steps[where] += 1
            due = self._fault and (self._fault.where, self._fault.number) == (where, self.steps[where])
            if due and self._fault and not self._fault.after:
                self._end()
            result = step(*args, **kwargs)
            if due and self._fault and self._fault.after:
                self._end()
            return result

        return take

    def _end(self) -> None:
        assert self._fault is not None
        if self._fault.kind == "stop":
            self._stop()
        else:
            self.dead = True
        self._check_dead()

    def _check_dead(self) -> None:
        if self.dead:
            raise DiedError


class World:
    """A campaign in the sandbox, and a ledger."""

    def __init__(self, lemlist: Sandbox, process: Process, policies: Policies, place: Path) -> None:
        self.lemlist = lemlist
        self.process = process
        self.policies = policies
        self.ledger = place / "ledger"
        self.hook = LemlistHook()
        self.campaign_id = str(lemlist.campaign()["_id"])
        self.attempts: Counter[int] = Counter()
        lemlist.service.undocumented = Undocumented(export_variables=policies.shows_variables)

    def close(self) -> None:
        """Remove the leads and the unsubscribes, so that they are not found in the next example."""
        world = self.lemlist.service.world
        with world.lock:
            world.unsubscribes.clear()
            for lead in list(world.campaign(self.campaign_id).leads.values()):
                world.remove_lead(lead)
        self.hook.close()

    def attempt(self, night: Night, fault: Fault | None = None) -> bool:
        """Load a night; return whether the load has ended with every row settled."""
        self.attempts[night.day] += 1
        task = self._task(night)
        moment = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=night.day)
        pushed: dict[str, Any] = {}
        ti = SimpleNamespace(
            dag_id="nightly", run_id=f"scheduled__{night.day}", task_id="load", map_index=-1, task=task,
            try_number=self.attempts[night.day],
            xcom_push=lambda key, value: pushed.update({key: json.loads(json.dumps(value))}),
        )  # fmt: skip
        context: Any = {
            "ti": ti,
            "dag_run": SimpleNamespace(logical_date=moment),
            "outlet_events": {},
            "params": {},
        }
        self.process.start(fault, task.on_kill)
        if fault and fault.kind == "lose":
            when = "after" if fault.after else "before"
            self.lemlist.fault(CREATE, "reset", times=1, skip=fault.number - 1, when=when)
        try:
            task.execute(context)
        except Exception as error:
            if isinstance(error, LemlistValidationError) and not night.rows:
                return "it is empty" in str(error)
            if fault is None or not (self.process.dead or fault.kind == "stop"):
                raise
            return False
        finally:
            self.process.dead = False
            self.lemlist.clear_faults()
            task.hook.close()
        report = pushed["report"]
        assert report["failed"] == report["not_tried"] == 0
        return not report["uncertain"]

    def _task(self, night: Night) -> LoadLeadsOperator:
        keyed = self.policies.keyed
        rows = [row.row(keyed=keyed) for row in night.rows for _ in range(1 + row.twice)]
        return LoadLeadsOperator(
            task_id="load",
            campaign_id=self.campaign_id,
            ledger_path=str(self.ledger),
            leads=rows,
            key="customer_id" if keyed and rows else None,
            column_map={"customer_id": None} if keyed else None,
            if_exists=self.policies.if_exists,
            if_missing=self.policies.if_missing,
            if_address_changed=self.policies.if_address_changed,
            max_missing=1,
            max_failed=100,
        )

    def happen(self, step: Happens) -> None:
        """Let people do something in lemlist."""
        self.process.start(None)
        if step.what == "create":
            self.hook.create_lead(self.campaign_id, step.row.lead())
            return
        lead_id = next(lead["_id"] for lead in self.leads() if self._who(lead) == step.row.who)
        if step.what == "delete":
            self.hook.delete_lead(self.campaign_id, lead_id)
        elif step.what == "unsubscribe":
            self.hook.unsubscribe_lead(self.campaign_id, str(step.row.lead()["email"]))
        elif step.what == "pause":
            self.hook.pause_lead(lead_id, campaign_id=self.campaign_id)
        else:
            self.hook.update_lead(self.campaign_id, lead_id, {"jobTitle": step.row.job})

    def lose_ledger(self) -> None:
        shutil.rmtree(self.ledger, ignore_errors=True)

    def leads(self) -> list[dict[str, str]]:
        """Return the leads of the campaign."""
        world = self.lemlist.service.world
        with world.lock:
            leads = world.campaign(self.campaign_id).leads.values()
            return [{**lead.values, "_id": lead.id, "status": lead.status} for lead in leads]

    def people(self) -> dict[Who, Lead]:
        """Return who is in the campaign, and make sure that no person is in it twice."""
        leads = self.leads()
        for one, other in combinations(leads, 2):
            assert not is_same(identities(one), identities(other))
        assert max(Counter(map(self._who, leads)).values(), default=1) == 1
        return {
            self._who(lead): Lead(lead["plan"], lead["jobTitle"], "email" in lead, lead["status"])
            for lead in leads
        }

    @staticmethod
    def _who(lead: dict[str, str]) -> Who:
        address = lead.get("email", ".0@").partition("@")[0].partition(".")[2]
        return Who(int(lead["firstName"].removeprefix("P")), int(address))

    def check_ledger(self, night: Night) -> None:
        """Make sure that every row of a load that has ended has one line."""
        (folder,) = self.ledger.glob(f"runs/scheduled__{night.day}.*")
        lines = [json.loads(line) for file in folder.glob("*.ndjson") for line in file.open()]
        rows = sorted(line["row"] for line in lines if line["row"] is not None)
        assert rows == list(range(1, len(night.rows) + sum(row.twice for row in night.rows) + 1))


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """Every load of this module is a step-by-step process on one thread, without waiting."""
    process = Process()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLOCK, "sleep", lambda seconds: None)
        patch.setattr(LemlistHook, "budget", NoLimit())
        patch.setattr(concurrency, "MAX_THREADS", 1)
        patch.setattr(pool, "POLL_INTERVAL", 0.002)
        patch.setattr(os, "fsync", lambda file: None)  # a process dies, not the machine
        send = Wire.send
        patch.setattr(Wire, "send", lambda *args: process.takes_step("request", send)(*args))
        for place, name in ((ledger_module, "write_whole"), (ledger_module.Ledger, "_remove")):
            patch.setattr(place, name, process.takes_step("write", getattr(place, name)))
        yield process


@pytest.fixture(scope="module")
def lemlist(process: Process) -> Iterator[Sandbox]:
    with Sandbox(limit="none") as sandbox, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", sandbox.airflow_connection())
        yield sandbox


# --- Stories ------------------------------------------------------------------------------------------

texts = st.sampled_from(["a", "b", "c"])
faults = st.builds(
    Fault,
    kind=st.sampled_from(["kill", "kill", "stop", "lose"]),
    where=st.sampled_from(["request", "write"]),
    number=st.integers(1, 9),
    after=st.booleans(),
)


@st.composite
def populations(draw: st.DrawFn, *, moves: bool) -> list[st.SearchStrategy[Row]]:
    """Draw people, each with the rows that the person may have in the source."""
    people = []
    for number in range(draw(st.integers(1, 5))):
        kind: Kind = draw(st.sampled_from(["address", "address and profile", "profile", "phone"]))
        addresses: list[int | None] = [0]
        if kind not in HAS_ADDRESS:
            addresses = draw(st.sampled_from([[None], [None, 0]]))
        elif moves:
            addresses = draw(st.sampled_from([[0], [0, 1]]))
        people.append(
            st.builds(
                Row,
                number=st.just(number),
                kind=st.just(kind),
                address=st.sampled_from(addresses),
                plan=texts,
                job=texts,
                broken=st.sampled_from(["", "", "", "", "zone", "address"]),
                twice=st.sampled_from([False, False, False, True]),
            )
        )
    return people


@st.composite
def sources(draw: st.DrawFn, people: list[st.SearchStrategy[Row]]) -> tuple[Night, ...]:
    """Draw the sources of some nights."""
    nights = []
    for day in range(1, draw(st.integers(2, 5)) + 1):
        rows = [draw(person) for person in people if draw(st.sampled_from([True, True, True, False]))]
        nights.append(Night(day, tuple(draw(st.permutations(rows)))))
    return tuple(nights)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Draw nights, in any order, and what happens between them."""
    keyed, moves = draw(st.booleans()), draw(st.booleans())
    policies = Policies(
        if_exists=draw(st.sampled_from(["update", "update", "update", "skip"])),
        if_missing=draw(st.sampled_from(["keep", "pause", "delete", "unsubscribe"])),
        if_address_changed=draw(st.sampled_from(["skip", "create"])),
        keyed=keyed,
        shows_variables=draw(st.booleans()),
    )
    people = draw(populations(moves=moves))
    nights = draw(sources(people))
    # With these, what an attempt leaves to others depends on how far it came.
    may_be_late = policies[:2] == ("update", "keep") and not (keyed and moves)
    steps: list[Step] = []
    for night in draw(st.permutations([*nights, *draw(st.lists(st.sampled_from(nights), max_size=2))])):
        steps.append(Run(night, draw(st.none() | faults), may_be_late and draw(st.booleans())))
        for _ in range(draw(st.integers(0, 2))):
            row = draw(draw(st.sampled_from(people)))
            whats = ["create", "delete", "pause", "edit"] + ["unsubscribe"] * (row.kind in HAS_ADDRESS)
            steps.append(Happens(draw(st.sampled_from(whats)), row._replace(broken="")))
        # Without it, a key is the only thing that connects two addresses.
        if not (keyed and moves) and draw(st.sampled_from([False] * 7 + [True])):
            steps.append(LedgerIsLost())
    return Story(policies, nights, tuple(steps))


def play(world: World, model: Model, steps: tuple[Step, ...]) -> None:
    """Play a story, and compare the campaign with the model whenever no load is unfinished."""
    unfinished: list[Night] = []

    def finish(night: Night) -> None:
        while not world.attempt(night):
            pass
        model.load(night)
        world.check_ledger(night)

    for step in steps:
        if isinstance(step, Run):
            if not world.attempt(step.night, step.fault):
                if step.late and not unfinished:
                    unfinished.append(step.night)
                    continue
                finish(step.night)
            else:
                model.load(step.night)
                world.check_ledger(step.night)
            if unfinished:
                finish(unfinished.pop())
        elif unfinished:
            continue
        elif isinstance(step, Happens):
            if model.happen(step):
                world.happen(step)
        else:
            model.lose_ledger()
            world.lose_ledger()
        assert world.people() == model.leads
    if unfinished:
        finish(unfinished.pop())
    assert world.people() == model.leads


#: A story takes many requests.
few = settings(
    max_examples=35 if settings.get_current_profile_name() == "steady" else 600,
    suppress_health_check=[HealthCheck.too_slow],
)


@few
@given(stories())
def test_campaign_is_as_the_documents_say(lemlist: Sandbox, process: Process, story: Story) -> None:
    with tempfile.TemporaryDirectory() as place:
        world, model = World(lemlist, process, story.policies, Path(place)), Model(story.policies)
        try:
            play(world, model, story.steps)
            newest = max(step.night for step in story.steps if isinstance(step, Run))
            play(world, model, (Run(newest),))
            before = world.leads()
            play(world, model, (Run(newest),))
            assert process.steps["request"] <= 4
            assert world.leads() == before
        finally:
            world.close()


@few
@given(st.data())
def test_every_order_ends_in_same_campaign(lemlist: Sandbox, process: Process, data: st.DataObject) -> None:
    policies = Policies(shows_variables=data.draw(st.booleans()))
    nights = data.draw(sources(data.draw(populations(moves=True))))
    steps = [Run(night) for night in nights]
    again = data.draw(st.lists(st.sampled_from(nights), max_size=2))
    shuffled = [
        Run(night, data.draw(st.none() | faults), data.draw(st.booleans()))
        for night in data.draw(st.permutations([*nights, *again]))
    ]
    ends = []
    for order in (steps, shuffled):
        with tempfile.TemporaryDirectory() as place:
            world = World(lemlist, process, policies, Path(place))
            try:
                play(world, Model(policies), tuple(order))
                ends.append(world.people())
            finally:
                world.close()
    assert ends[0] == ends[1]


# --- Found by the stories -----------------------------------------------------------------------------

ANA = Row(0, "address", 0, "a", "a")
BOB = Row(1, "profile", None, "a", "a")
CID = Row(2, "address", 0, "a", "a")
MOVED = ANA._replace(address=1)


@pytest.mark.parametrize(
    ("policies", "steps"),
    [
        pytest.param(
            Policies(if_missing="unsubscribe"),
            (Run(Night(1, (ANA, BOB))), Run(Night(2, (ANA,))), Run(Night(3, (ANA, BOB))),
             Run(Night(4, (ANA, BOB._replace(plan="b"))))),
            id="who was unsubscribed without an address stays so",
        ),
        pytest.param(
            Policies(if_missing="delete"),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (CID,))), Run(Night(3, (ANA, CID))),
             Happens("delete", ANA), Run(Night(4, (ANA, CID)))),
            id="who came back and was deleted in lemlist stays deleted",
        ),
        pytest.param(
            Policies(if_missing="delete"),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (CID,))), Happens("create", ANA),
             Run(Night(3, (ANA, CID))), Happens("delete", ANA), Run(Night(4, (ANA, CID)))),
            id="who was put back in lemlist and deleted there stays deleted",
        ),
        pytest.param(
            Policies(if_missing="delete"),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (CID,))), Run(Night(5, (CID,))), Run(Night(4, (ANA,)))),
            id="an older night does not put back who is not in the newest",
        ),
        pytest.param(
            Policies(if_missing="pause"),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (CID,))), Run(Night(5, (CID,))), Run(Night(4, (ANA,)))),
            id="an older night does not resume who is not in the newest",
        ),
        pytest.param(
            Policies(if_missing="pause", if_address_changed="create", keyed=True),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (MOVED, CID)))),
            id="the lead of the old address leaves when that of the new one is created",
        ),
        pytest.param(
            Policies(if_missing="pause", keyed=True),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (CID,))), Run(Night(3, (MOVED, CID))),
             Run(Night(4, (ANA, CID)))),
            id="who comes back with another address first is resumed later",
        ),
        pytest.param(
            Policies(if_address_changed="create", keyed=True),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (MOVED, CID))), Happens("delete", MOVED),
             Run(Night(3, (ANA, CID))), Run(Night(4, (MOVED, CID)))),
            id="a deleted address stays deleted when the person has had it before",
        ),
        pytest.param(
            Policies(if_missing="unsubscribe"),
            (Run(Night(1, (ANA, CID))), Run(Night(2, (CID,))), Run(Night(2, (CID, ANA)))),
            id="who is back when a night is repeated has a line",
        ),
    ],
)  # fmt: skip
def test_stories_that_once_ended_differently(
    lemlist: Sandbox, process: Process, tmp_path: Path, policies: Policies, steps: tuple[Step, ...]
) -> None:
    world = World(lemlist, process, policies, tmp_path)
    try:
        play(world, Model(policies), steps)
    finally:
        world.close()
