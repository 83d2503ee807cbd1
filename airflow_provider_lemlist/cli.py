# SPDX-License-Identifier: Apache-2.0
"""
``airflow lemlist budget``: how the rate budget of a connection is now. For Airflow 3.2+.

Every call of ``airflow`` loads this module, so whatever it needs is imported when a command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from argparse import Namespace

#: What the numbers of ``Budget.state`` mean, in the order in which they are shown.
MEANINGS = {
    "limit": "requests per window, as lemlist announces it",
    "capacity": "requests that may go in each period now",
    "period": "seconds: the window of lemlist and the margin",
    "margin": "seconds, for what is late on the way",
    "waiting": "requests that have a slot and wait for it",
    "longest_wait": "seconds until the last of them goes",
    "pause": "seconds that all clients pause after a refusal",
    "other_clients": "requests per window that other clients of the key seem to use",
    "booked": "requests since the budget was made",
}


def get_cli_commands() -> list[Any]:
    """Return the commands for Airflow."""
    from airflow.cli import cli_config as cli

    conn_id = cli.Arg(  # type: ignore[no-untyped-call]  # Airflow's own
        ("--conn-id",), default=DEFAULT_CONN_ID, help=f"lemlist connection (default: {DEFAULT_CONN_ID})"
    )
    budget = cli.ActionCommand(
        name="budget",
        help="Show how the rate budget of a connection is now",
        func=cli.lazy_load_command(f"{__name__}.show_budget"),
        args=(conn_id, cli.ARG_OUTPUT, cli.ARG_VERBOSE),
    )
    return [cli.GroupCommand(name="lemlist", help="Inspect the lemlist provider", subcommands=(budget,))]


def show_budget(args: Namespace) -> None:
    """Show how the rate budget of a connection is now, without a request to lemlist."""
    from airflow.cli.simple_table import AirflowConsole
    from airflow.models.connection import Connection

    from airflow_provider_lemlist.exceptions import LemlistConfigurationError
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    hook = LemlistHook(args.conn_id)
    # Only here a connection in the database can be read without a task around.
    hook.get_connection = Connection.get_connection_from_secrets  # type: ignore[method-assign]
    try:
        state = {name: round(value, 3) for name, value in hook.budget.state().items()}
    except LemlistConfigurationError as error:
        raise SystemExit(str(error)) from None
    if not state["shared"]:
        raise SystemExit(1)  # why, was logged
    shown = [{"name": name, "now": state[name], "meaning": says} for name, says in MEANINGS.items()]
    if args.output in ("json", "yaml"):
        shown = [{name: state[name] for name in MEANINGS}]
    AirflowConsole().print_as(shown, args.output)
