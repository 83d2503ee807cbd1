# SPDX-License-Identifier: Apache-2.0
"""
The commands of ``airflow lemlist``, on Airflow 3.2+; ``__main__`` offers them on every version.

Every call of ``airflow`` loads this module, so the commands import what they need when they run.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID

#: The meaning of the numbers of ``Budget.state``, in the order in which they are shown.
MEANINGS = {
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


def get_cli_commands() -> list[Any]:
    """Return the commands of the provider."""
    from airflow.cli import cli_config as cli

    def command(name: str, help: str, function: str, *args: Any) -> Any:
        run = cli.lazy_load_command(f"{__name__}.{function}")
        return cli.ActionCommand(name, help, run, (*args, cli.ARG_OUTPUT, cli.ARG_VERBOSE))

    def arg(name: str, help: str, **more: Any) -> Any:
        return cli.Arg((name,), help=help, **more)  # type: ignore[no-untyped-call]  # Airflow's own

    commands = (
        command(
            "budget",
            "Show the present rate budget of a connection",
            "show_budget",
            arg("--conn-id", f"lemlist connection (default: {DEFAULT_CONN_ID})", default=DEFAULT_CONN_ID),
        ),
        command(
            "ledger",
            "Show the runs of a ledger, and who is in doubt",
            "show_ledger",
            arg("path", "directory of the ledger, on disk or in an object storage"),
            arg("--storage-conn-id", "connection of the object storage"),
        ),
    )
    return [cli.GroupCommand(name="lemlist", help="Inspect the lemlist provider", subcommands=commands)]


def show_budget(args: Namespace) -> None:
    """Show the present rate budget of a connection; sends nothing to lemlist."""
    from airflow.cli.simple_table import AirflowConsole

    from airflow_provider_lemlist.exceptions import LemlistConfigurationError
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    _find_stored_connections()
    try:
        state = {name: round(value, 3) for name, value in LemlistHook(args.conn_id).budget.state().items()}
    except LemlistConfigurationError as error:
        raise SystemExit(str(error)) from None
    if not state["shared"]:
        raise SystemExit(1)  # the reason was logged
    shown = [{"name": name, "now": state[name], "meaning": meaning} for name, meaning in MEANINGS.items()]
    if args.output in ("json", "yaml"):
        shown = [{name: state[name] for name in MEANINGS}]
    AirflowConsole().print_as(shown, args.output)


def show_ledger(args: Namespace) -> None:
    """Show the runs of a ledger, and who is in doubt; sends and writes nothing."""
    from airflow.cli.simple_table import AirflowConsole
    from airflow.providers.common.compat.sdk import AirflowException

    from airflow_provider_lemlist.ledger.summary import summarize
    from airflow_provider_lemlist.storage import storage_path

    _find_stored_connections()
    try:
        summary = summarize(storage_path(args.path, args.storage_conn_id, "The path"))
    except (AirflowException, OSError) as error:
        raise SystemExit(str(error)) from None
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
