# SPDX-License-Identifier: Apache-2.0
"""
The commands of ``airflow lemlist``, on Airflow 3.2+; ``__main__`` offers them on every version.

Every call of ``airflow`` loads this module, so the commands import what they need when they run.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow_provider_lemlist.campaigns.apply import Application

#: The meaning of what ``budget`` shows, in that order: the store, and the numbers of ``Budget.state``.
MEANINGS = {
    "store": "where the rest was read",
    "shared_by": "whose requests it counts",
    "limit": "requests per window, as lemlist announces it",
    "capacity": "requests that may go in each period now",
    "period": "seconds: the window of lemlist plus the margin",
    "margin": "seconds, for requests that are late on the way",
    "waiting": "requests that wait for their slot",
    "longest_wait": "seconds until the last of them goes",
    "pause": "seconds that all requests still pause after a refusal",
    "other_clients": "requests per window that other clients of the key seem to use",
    "booked": "requests since the state was created",
}
#: The exit status of ``plan`` if something differs.
DIFFERS = 2


def get_cli_commands() -> list[Any]:
    """Return the commands of the provider."""
    from airflow.cli import cli_config as cli

    from airflow_provider_lemlist.delivery.policy import IfRunning, OnExtra

    def command(name: str, help: str, function: str, *args: Any, epilog: str | None = None) -> Any:
        run = cli.lazy_load_command(f"{__name__}.{function}")
        return cli.ActionCommand(name, help, run, (*args, cli.ARG_VERBOSE), help, epilog)

    def arg(name: str, help: str, **more: Any) -> Any:
        return cli.Arg((name,), help=help, **more)  # type: ignore[no-untyped-call]  # Airflow's own

    conn_id = arg("--conn-id", f"lemlist connection (default: {DEFAULT_CONN_ID})", default=DEFAULT_CONN_ID)
    file = arg("file", "YAML file with the definition of a campaign", metavar="FILE")
    param = arg(
        "--param",
        "value for [[ NAME ]] in the definition; may be given several times",
        action="append",
        metavar="NAME=VALUE",
    )
    definition = (
        file,
        param,
        arg("--campaign-id", "id of the campaign (default: it is found by its name)", metavar="ID"),
        conn_id,
        arg(
            "--on-extra",
            "what to do about steps that lemlist has and the definition lacks, or has at another place "
            "(default: fail)",
            choices=get_args(OnExtra),
            default="fail",
        ),
        arg(
            "--if-running",
            "what to do if something differs while the campaign is running; pause: pause it, apply the "
            "definition and start it again (default: fail)",
            choices=get_args(IfRunning),
            default="fail",
        ),
        arg("--refresh-unseen", "send the fields again that lemlist does not list", action="store_true"),
    )
    commands = (
        command(
            "validate",
            "Check the definition of a campaign, without lemlist and without a connection",
            "validate_campaign",
            file,
            param,
            epilog="Exit status: 0 if it is valid, 1 if not; each mistake is a line on stderr.",
        ),
        command(
            "plan",
            "Show what applying a definition would change; change nothing",
            "plan_campaign",
            *definition,
            epilog="Exit status: 0 if nothing differs, 2 if something does, 1 after an error. A mistake in "
            "the options is 1 in `python -m airflow_provider_lemlist`, but 2 in every command of `airflow`.",
        ),
        command(
            "apply",
            "Change a campaign until it equals its definition; create it if it does not exist",
            "apply_campaign",
            *definition,
            epilog="Exit status: 0 if the campaign equals the definition, 1 after an error.",
        ),
        command(
            "export",
            "Write the definition of a campaign that exists, as YAML",
            "export_campaign",
            arg("campaign", "id or name of the campaign", metavar="CAMPAIGN"),
            conn_id,
        ),
        command(
            "budget", "Show the present rate budget of a connection", "show_budget", conn_id, cli.ARG_OUTPUT
        ),
        command(
            "check",
            "Check connection, API key, budget store, limits, clocks and packages, and print what to mend",
            "check_connection",
            conn_id,
            cli.ARG_OUTPUT,
            epilog="Requests the team of the key once, and changes nothing. Exit status: 0, or 1 if a row "
            "has status fail.",
        ),
        command(
            "ledger",
            "Show the runs of a ledger, and who is in doubt",
            "show_ledger",
            arg("path", "directory of the ledger, on disk or in an object storage"),
            arg("--storage-conn-id", "connection of the object storage"),
            cli.ARG_OUTPUT,
        ),
        command(
            "audit",
            "Show what tasks have changed in lemlist, as the audit trail says",
            "show_audit",
            arg("path", "directory of the trail (default: [lemlist] audit_path)", nargs="?", default=""),
            arg("--lead", "only a lead: its id, or the address of the person", default=""),
            arg("--campaign", "only a campaign: its id", default="", metavar="ID"),
            arg("--since", "only from this moment on, ISO 8601", default="", metavar="TIME"),
            arg("--storage-conn-id", "connection of the object storage"),
            cli.ARG_OUTPUT,
        ),
    )
    summary = "Plan and apply campaigns; check a connection; show rate budgets, ledgers and audit trails"
    return [cli.GroupCommand(name="lemlist", help=summary, subcommands=commands)]


def _run(function: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """Let a command find stored connections, log to stderr, and end with a line there if it fails."""

    @wraps(function)
    def run(args: Namespace) -> None:
        from airflow.providers.common.compat.sdk import AirflowException

        from airflow_provider_lemlist.exceptions import LemlistError

        _log_to_stderr()
        _find_stored_connections()
        try:
            function(args)
        except (LemlistError, AirflowException, OSError) as error:
            raise SystemExit(str(error)) from None  # Python prints it, and exits with status 1

    return run


# --- Campaigns as code ------------------------------------------------------------------------------------


@_run
def validate_campaign(args: Namespace) -> None:
    """Check a definition; sends nothing, and needs no connection."""
    _definition(args)
    print(f"{args.file}: valid")


@_run
def plan_campaign(args: Namespace) -> None:
    """Show what applying a definition would change."""
    application = _application(args)
    with _log_on_stdout():
        outcome = application.plan()
    if outcome.plan.changes:
        raise SystemExit(DIFFERS)


@_run
def apply_campaign(args: Namespace) -> None:
    """Show the plan, and change the campaign until it equals its definition."""
    application = _application(args)
    with _log_on_stdout():
        application.apply(after_kill=False)


@_run
def export_campaign(args: Namespace) -> None:
    """Write the definition of a campaign; changes nothing."""
    from airflow_provider_lemlist.campaigns.export import definition_of, to_yaml
    from airflow_provider_lemlist.exceptions import LemlistNotFoundError
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    hook, campaign_id = LemlistHook(args.conn_id), args.campaign
    if not campaign_id.startswith("cam_"):
        found = hook.find_campaign(args.campaign)
        if found is None:
            raise LemlistNotFoundError(f"lemlist has no campaign {args.campaign!r}, except archived ones.")
        campaign_id = found["_id"]
    definition = definition_of(hook.get_campaign(campaign_id), hook.get_sequences(campaign_id))
    sys.stdout.write(to_yaml(definition))


def _application(args: Namespace) -> Application:
    """Return the definition with the campaign that it is applied to."""
    from airflow_provider_lemlist.campaigns.apply import Application, ApplyOptions
    from airflow_provider_lemlist.campaigns.memory import Memory
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    definition = _definition(args)
    if args.campaign_id is not None:
        _refuse_empty(args.campaign_id, "--campaign-id")
    options = ApplyOptions(args.campaign_id, args.on_extra, args.if_running, args.refresh_unseen)
    return Application(LemlistHook(args.conn_id), definition, options, Memory())


def _definition(args: Namespace) -> dict[str, Any]:
    """Return the definition in the file with the values of its parameters; exit if it has mistakes."""
    from airflow_provider_lemlist.campaigns.checks import all_mistakes
    from airflow_provider_lemlist.campaigns.definition import fill
    from airflow_provider_lemlist.campaigns.files import read_document

    parameters = {}
    for given in args.param or ():
        name, _, value = given.partition("=")
        _refuse_empty(value, f"--param {name}")
        parameters[name] = value
    document = read_document(args.file, os.getcwd())
    if found := all_mistakes(document, parameters):
        raise SystemExit("\n".join(found))
    return fill(document.definition, parameters)


def _refuse_empty(value: str, what: str) -> None:
    """Refuse a value that a shell variable without a value may have left, as the operators do."""
    from airflow_provider_lemlist.arguments import given_but_empty
    from airflow_provider_lemlist.exceptions import LemlistConfigurationError

    if given_but_empty(value):
        raise LemlistConfigurationError(f"{what} has no value. Nothing was sent.")


@contextmanager
def _log_on_stdout() -> Iterator[None]:
    """Print what planning and applying log: the plan, then the progress."""
    from airflow_provider_lemlist.campaigns.apply import log

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Plain())
    level, log.propagate = log.level, False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = True


class _Plain(logging.Formatter):
    """Only the message; with colours on a terminal, see https://no-color.org."""

    def format(self, record: logging.LogRecord) -> str:
        from airflow_provider_lemlist.campaigns.describe import coloured

        mark = "! " if record.levelno >= logging.WARNING else ""
        lines = f"{mark}{record.getMessage()}".splitlines()
        in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return "\n".join(coloured(lines) if in_colour else lines)


# --- What is there ----------------------------------------------------------------------------------------


@_run
def show_budget(args: Namespace) -> None:
    """Show the present rate budget of a connection; sends nothing to lemlist."""
    from airflow.cli.simple_table import AirflowConsole

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    budget = LemlistHook(args.conn_id).budget
    numbers = budget.state()
    if not numbers["shared"]:
        raise SystemExit(1)  # the reason was logged
    state: dict[str, Any] = {name: round(value, 3) for name, value in numbers.items()}
    state["store"] = budget.store.place
    state["shared_by"] = budget.store.shared_by
    shown = [{"name": name, "now": state[name], "meaning": meaning} for name, meaning in MEANINGS.items()]
    if args.output in ("json", "yaml"):
        shown = [{name: state[name] for name in MEANINGS}]
    AirflowConsole().print_as(shown, args.output)


@_run
def check_connection(args: Namespace) -> None:
    """Check everything that a connection needs; requests the team of the key."""
    from airflow.cli.simple_table import AirflowConsole

    from airflow_provider_lemlist.checkup import look
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    findings = look(LemlistHook(args.conn_id))
    AirflowConsole().print_as([finding._asdict() for finding in findings], args.output)
    if any(finding.status == "fail" for finding in findings):
        raise SystemExit(1)


@_run
def show_ledger(args: Namespace) -> None:
    """Show the runs of a ledger, and who is in doubt; sends and writes nothing."""
    from airflow.cli.simple_table import AirflowConsole

    from airflow_provider_lemlist.ledger.summary import summarize
    from airflow_provider_lemlist.storage import storage_path

    summary = summarize(storage_path(args.path, args.storage_conn_id, "The path"))
    console = AirflowConsole()
    if args.output == "json":
        console.print_as_json(summary)
    elif args.output == "yaml":
        console.print_as_yaml(summary)
    else:
        print("Campaign {campaign_id}: {people:,} people were loaded from here.\n".format(**summary))
        console.print_as(_run_table(summary["runs"]), args.output)
        print("In doubt:" if summary["in_doubt"] else "No one is in doubt.")
        if summary["in_doubt"]:
            console.print_as(_doubt_table(summary["in_doubt"]), args.output)


@_run
def show_audit(args: Namespace) -> None:
    """Show the records of an audit trail; sends and writes nothing."""
    from airflow.cli.simple_table import AirflowConsole
    from airflow.providers.common.compat.sdk import conf

    from airflow_provider_lemlist.audit import is_about, read_audit
    from airflow_provider_lemlist.storage import storage_path

    address = args.path or conf.get("lemlist", "audit_path", fallback="")
    path = storage_path(address, args.storage_conn_id, "The path")
    records = sorted(
        (
            record
            for record in read_audit(path)
            if is_about(record, lead=args.lead, campaign=args.campaign, since=args.since)
        ),
        key=lambda record: str(record["time"]),
    )
    if args.output not in ("json", "yaml"):
        records = [_audit_row(record) for record in records]
    AirflowConsole().print_as(records, args.output)


def _audit_row(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as a row of a table; the ids as in the record, the task in one column."""
    index = record.get("map_index")
    mapped = f"[{index}]" if index is not None and index >= 0 else ""
    names = ("time", "outcome", "operation", "campaign_id", "lead_id")
    return {name: record.get(name) or "" for name in names} | {
        "task": f"{record.get('dag_id', '')}.{record.get('task_id', '')}{mapped}".strip("."),
        "run": record.get("run_id") or "",
        "try": record.get("try_number") or "",
    }


def _run_table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each run, with a column for every outcome that occurs in one of them."""
    from airflow_provider_lemlist.ledger.ledger import ANY_OUTCOME

    names = [name for name in ANY_OUTCOME if any(name in run["counts"] for run in runs)]
    return [
        {"run": run["run"], "finished": run["finished"] or "no"}
        | {name: run["counts"].get(name, 0) for name in names}
        for run in runs
    ]


def _doubt_table(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each run and outcome: a killed run may have left dozens in flight."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for person in people:
        groups.setdefault((person["run"] or "", person["outcome"] or ""), []).append(person)
    return [
        {"run": run, "outcome": outcome, "people": len(group)}
        | {f"{name}s": ", ".join(str(one[name]) for one in group if one[name]) for name in ("row", "lead_id")}
        for (run, outcome), group in groups.items()
    ]


def _find_stored_connections() -> None:
    """Let hooks find connections in the database of Airflow, too; Airflow 3 does that only in a task."""
    from airflow.models.connection import Connection
    from airflow.providers.common.compat.sdk import BaseHook

    BaseHook.get_connection = Connection.get_connection_from_secrets  # type: ignore[method-assign]


def _log_to_stderr() -> None:
    """Keep log lines out of the output; Airflow writes them to stdout."""
    log = logging.getLogger()
    for handler in [*log.handlers]:
        if getattr(handler, "stream", None) is sys.stdout:
            instead = logging.StreamHandler(sys.stderr)
            instead.setFormatter(handler.formatter)
            log.removeHandler(handler)
            log.addHandler(instead)
