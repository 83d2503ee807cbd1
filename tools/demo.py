# SPDX-License-Identifier: Apache-2.0
"""
``make demo``: run the example DAGs in real Airflow against the sandbox and print the results.

    python -m tools.demo [DAG …]

The exit status is 1 if a DAG failed, if the sandbox refused a request or recorded a violation, if applying an
edited definition took more or fewer requests than the edits need, or if files and tables differ from what is
in the sandbox. Everything runs on this machine and is removed at the end.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap
from typing import Any

from airflow_provider_lemlist.sandbox import Sandbox
from tools.brought_home import differences, lake_lines
from tools.private_airflow import VERSION, PrivateAirflow

ROOT = Path(__file__).parents[1]
#: Runs three times: it builds a campaign, finds nothing to change, and applies the edited definition.
AS_CODE = "lemlist_campaign_as_code"
#: Runs twice: the second run replaces what the first one wrote.
WAREHOUSE = "lemlist_to_warehouse"
#: All that run by themselves. The others wait: for a reply, or for a person who approves.
EXAMPLES = (
    *("lemlist_outreach", "lemlist_mapped_leads", "lemlist_voice_notes", "lemlist_load_leads"),
    *(AS_CODE, WAREHOUSE),
)
RUNS = {AS_CODE: 3, WAREHOUSE: 2}
DEFINITION = "campaigns/spring_webinar.yaml"
#: The edits before its third run: another subject, and one more step.
EDITS = {
    "{{firstName}}, a question": "{{firstName}}, an invitation",
    "  - type: linkedinInvite\n": "  - type: linkedinVisit\n    delay: 1\n  - type: linkedinInvite\n",
}
#: Campaigns that were there before the DAGs ran.
SAMPLE_CAMPAIGNS = ("Autumn webinar", "Product tour")
SAMPLE_LEADS = 30
SAMPLE_STEPS: tuple[dict[str, Any], ...] = (
    {"type": "email", "subject": "{{firstName}}, a seat for you", "message": "<p>Will you join us?</p>"},
    {"type": "linkedinInvite", "delay": 1},
    {"type": "linkedinSend", "delay": 2, "message": "Hi {{firstName}}, did you see my email?"},
)
#: lemlist's responses if a lead exists, which CreateLeadOperator then returns, and if a person has not
#: unsubscribed, for which it asks first.
EXPECTED = ("Lead already in the campaign", "Variable not found")
#: Timeout of the runs, in seconds.
TIMEOUT = 300
#: With this seed Ada opens the email, accepts the invitation and replies to the voice note.
SIMULATION: dict[str, Any] = {"opens": 1, "clicks": 0, "accepts": 1, "replies": 0.5, "speed": 5, "seed": 0}

State = dict[str, Any]


def main(*dag_ids: str) -> int:
    """Run the demo; return the exit code."""
    dag_ids = dag_ids or EXAMPLES
    if unknown := sorted(set(dag_ids) - set(EXAMPLES)):
        print(f"No such example: {', '.join(unknown)}. There are {', '.join(EXAMPLES)}.", file=sys.stderr)
        return 2
    with Sandbox() as lemlist, TemporaryDirectory(prefix="lemlist-dags-") as folder:
        dags = Path(shutil.copytree(ROOT / "dags_examples", folder, dirs_exist_ok=True))
        if WAREHOUSE in dag_ids:
            add_prospects(lemlist)
        lemlist.simulate(**SIMULATION)
        print(f"lemlist sandbox  {lemlist.origin}, at most 20 requests in any 2 seconds")
        connection = {"AIRFLOW_CONN_LEMLIST_DEFAULT": lemlist.airflow_connection()}
        with PrivateAirflow(dags, **connection) as airflow:
            print(f"Airflow          {VERSION}, ", end="", flush=True)
            order = [each for dag_id in dag_ids for each in RUNS.get(dag_id, 1) * [dag_id]]
            runs = run_all(airflow, lemlist, dags, order)
            state = lemlist.state()
            refused = [request for request in lemlist.requests() if is_failure(request)]
            for campaign in state["campaigns"]:
                print("", *campaign_lines(campaign, state), sep="\n")
            as_code = [run for run in runs if run["dag_id"] == AS_CODE]
            if as_code:
                print("", *as_code_lines(as_code), sep="\n")
            print("", *return_lines(runs), sep="\n")
            print("", *request_lines(state, refused), sep="\n")
            home = [run for run in runs if run["dag_id"] == WAREHOUSE]
            wrong = differences(airflow.lake, airflow.warehouse, state) if home else []
            if home:
                print("", *home_lines(home, airflow.lake), sep="\n")
            failed = len(runs) < len(order) or any(run["state"] != "success" for run in runs)
            if failed:
                print(f"\nA DAG failed. The end of Airflow's log:\n\n{airflow.tail()}")
    if failed or refused or state["violations"]:
        return 1
    if [run["writes"] for run in as_code[1:]] != [0, len(EDITS)] and AS_CODE in dag_ids:
        print(f"\n{DEFINITION} took more or fewer writes than its edits need.", file=sys.stderr)
        return 1
    if wrong or len({str(rows_of(run)) for run in home}) > 1:
        print("\nFiles and tables are not what the sandbox has.", *wrong, sep="\n  ", file=sys.stderr)
        return 1
    print(
        "\nNext steps",
        "  dags_examples/   the DAGs of this demo",
        "  make ui          the same in Airflow's web interface, with the web page of the sandbox",
        "  docs/            a guide for each operator, the connection, the rate budget, the sandbox",
        sep="\n",
    )
    return 0


def add_prospects(lemlist: Sandbox) -> None:
    """Add two running campaigns whose leads the sandbox simulates."""
    for name in SAMPLE_CAMPAIGNS:
        campaign_id = add_campaign(lemlist, name)
        for number in range(SAMPLE_LEADS):
            lemlist.lead(campaign_id, f"{name[:6].lower()}-{number}@example.com", firstName=f"No. {number}")


def add_campaign(lemlist: Sandbox, name: str) -> str:
    """Add a running campaign without leads; return its id."""
    campaign = lemlist.campaign(name, status="running")
    for step in SAMPLE_STEPS:
        lemlist.step(campaign["sequenceId"], **step)
    return str(campaign["_id"])


def run_all(airflow: PrivateAirflow, lemlist: Sandbox, dags: Path, dag_ids: list[str]) -> list[State]:
    """Run the DAGs; return their results, each with the number of requests that changed a campaign."""
    runs: list[State] = []
    for run in follow(airflow, dag_ids):
        writes = sum(map(changes_campaign, lemlist.requests())) - sum(each["writes"] for each in runs)
        runs.append(run | {"writes": writes})
        if [each["dag_id"] for each in runs].count(AS_CODE) == 2:
            edit(dags / DEFINITION)
    return runs


def edit(definition: Path) -> None:
    """Edit the definition, as a user would between two runs."""
    text = definition.read_text()
    for before, after in EDITS.items():
        text = text.replace(before, after, 1)
    definition.write_text(text)


def changes_campaign(request: Mapping[str, Any]) -> bool:
    """Return whether a request changes a campaign or its steps; leads do not count."""
    return request["method"] != "GET" and "/leads" not in request["path"]


def is_failure(request: Mapping[str, Any]) -> bool:
    return request["status"] != 200 and request["response"]["body"] not in EXPECTED


def follow(airflow: PrivateAirflow, dag_ids: list[str]) -> Iterator[State]:
    """Run the DAGs; print and yield the result of each when it ends, before the next one begins."""
    report = airflow.home / "report.jsonl"
    report.touch()
    with airflow.log.open("ab") as log, report.open() as lines:
        process = subprocess.Popen(
            (sys.executable, "-m", "tools.run_dags", str(report)),
            cwd=ROOT,
            env=airflow.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin
        waiting = iter(dag_ids)
        deadline = time.monotonic() + TIMEOUT
        ended = False
        try:
            while not ended and time.monotonic() < deadline:
                ended = process.poll() is not None
                for line in lines:
                    run = json.loads(line)
                    if "dag_id" in run:
                        tasks = f"{len(run['tasks'])} tasks"
                        print(f"  {run['dag_id']:<24} {run['state']:<8} {tasks:>9} {run['seconds']:6.1f} s")
                        yield run
                    else:
                        print(f"ready after {run['seconds']:.1f} s\n")
                    if dag_id := next(waiting, None):
                        print(dag_id, file=process.stdin, flush=True)
                    else:
                        process.stdin.close()
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()


# --- The report -------------------------------------------------------------------------------------------


def campaign_lines(campaign: State, state: State) -> Iterator[str]:
    """Describe a campaign: its steps as a tree, and its leads with their activities."""
    yield f"{campaign['name'].partition('manual__')[0].strip()}  {campaign['_id']}, {campaign['status']}"
    sequences = campaign["sequences"]
    yield from (f"  {line}" for line in tree(campaign["sequenceId"], sequences))
    leads = [lead for lead in state["leads"] if lead["campaignId"] == campaign["_id"]]
    if len(leads) == SAMPLE_LEADS:
        happened = sum(activity["campaignId"] == campaign["_id"] for activity in state["activities"])
        yield f"  {len(leads)} leads with {happened} activities"
        return
    for lead in leads:
        yield from (f"  {line}" for line in lead_lines(lead, state))


def tree(sequence_id: str, sequences: dict[str, State]) -> Iterator[str]:
    """Draw a sequence: one line per step, and the two branches below a condition."""
    for number, step in enumerate(sequences[sequence_id]["steps"], 1):
        text = step.get("subject") or step.get("message") or ""
        yield f"{number}. {when(step):<14} {step['type']:<18} {step['_id']}  {text}".rstrip()
        branches = step.get("conditions", [])
        for branch in branches:
            last = branch is branches[-1]
            yield f"   {'└─' if last else '├─'} {branch.get('key', 'fallback')}  {branch['sequenceId']}"
            for line in tree(branch["sequenceId"], sequences):
                yield f"   {' ' if last else '│'}    {line}"


def when(step: State) -> str:
    days = step["delay"]
    if not days:
        return "immediately"
    word = "within" if step.get("delayType") == "within" else "after"
    return f"{word} {days} day{'s' if days > 1 else ''}"


def lead_lines(lead: State, state: State) -> Iterator[str]:
    yield f"{lead['variables'].get('firstName', '?'):<10} {lead['_id']}  {lead['status']}"
    margin = " " * 11
    types = [each["type"] for each in reversed(state["activities"]) if each["leadId"] == lead["_id"]]
    yield from wrap(", ".join(types), width=96, initial_indent=margin, subsequent_indent=margin)
    for audio in state["audio"]:
        if audio["leadId"] == lead["_id"]:
            yield f"{margin}voice note {audio['fileName']!r}, {audio['size']:,} bytes, at {audio['stepId']}"


def as_code_lines(runs: list[State]) -> Iterator[str]:
    """Show the plan of each run of a definition, and how many requests it took."""
    events = ("builds the campaign", "finds it as it is defined", "applies two edits of the file")
    yield f"Campaign as code: {DEFINITION}"
    for number, (run, event) in enumerate(zip(runs, events, strict=False), 1):
        yield f"  run {number} {event}: {run['writes']} writes"
        for task in run["tasks"]:
            if task["plan"] is not None:
                yield from (f"    {line}" for line in task["plan"] or ["no changes"])


def return_lines(runs: list[State]) -> Iterator[str]:
    """List the return values of the tasks, of a DAG that ran several times those of the last run."""
    yield "Return values of the tasks"
    for run in {run["dag_id"]: run for run in runs}.values():
        yield f"  {run['dag_id']}"
        for task in run["tasks"]:
            name = task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else "")
            returned = task["returned"]
            yield f"    {name:<20} {short(returned) if task['state'] == 'success' else task['state']}"


def short(returned: Any) -> str:
    if returned is None:
        return "-"
    if isinstance(returned, str) and "\n" in returned:
        return f"a table of {len(returned.splitlines()) - 1} rows"
    if isinstance(returned, list) and returned and isinstance(returned[0], dict):
        kinds = {str(each.get("type", "row")) for each in returned}
        return f"{len(returned)} x {', '.join(sorted(kinds))}"
    if isinstance(returned, list):
        return f"{len(returned)} items"
    if isinstance(returned, dict):
        return ", ".join(
            f"{name} {count}" for name, count in returned.items() if count and isinstance(count, int)
        )
    return str(returned)


def home_lines(runs: list[State], lake: Path) -> Iterator[str]:
    """Show what each run brought home, the files, and the table that the last run printed."""
    yield "Brought home: rows written" + "".join(f"{f'run {number}':>8}" for number, _ in enumerate(runs, 1))
    written = [rows_of(run) for run in runs]
    for task_id in written[-1]:
        yield f"  {task_id:<24}" + "".join(f"{rows.get(task_id, '-'):>8}" for rows in written)
    yield "  the files, with the rows of each manifest"
    yield from (f"    {line}" for line in lake_lines(lake))
    yield "  replies, by a query on the tables"
    for task in runs[-1]["tasks"]:
        if task["task_id"] == "replies":
            yield from (f"    {line}" for line in str(task["returned"]).splitlines())


def rows_of(run: State) -> dict[str, int]:
    """Return how many rows each transfer of a run wrote."""
    return {
        task["task_id"]: task["returned"]["rows"]
        for task in run["tasks"]
        if isinstance(task["returned"], dict) and "rows" in task["returned"]
    }


def request_lines(state: State, refused: list[Mapping[str, Any]]) -> Iterator[str]:
    """Summarize the requests and list those that failed."""
    yield "Requests"
    limit = state["limit"]
    for key in limit["keys"].values():
        yield f"  {key['admitted'] + key['refused']} sent, {key['refused']} refused by the rate limit"
        yield f"  at most {key['busiest']} in {limit['seconds']:g} seconds; {limit['requests']} are allowed"
    yield f"  {len(refused)} failed, {len(state['violations'])} violations of lemlist's documents"
    for request in refused:
        text = request["response"]["body"]
        yield f"    {request['status']}  {request['method']} {request['path']}  {text[:100]}"
    for violation in state["violations"]:
        yield f"    request {violation['request']}: {violation['what']}"


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
