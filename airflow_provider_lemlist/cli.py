# SPDX-License-Identifier: Apache-2.0
"""
``airflow lemlist budget``: show the present rate budget of a connection. For Airflow 3.2+.

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

    conn_id = cli.Arg(  # type: ignore[no-untyped-call]  # Airflow's own
        ("--conn-id",), default=DEFAULT_CONN_ID, help=f"lemlist connection (default: {DEFAULT_CONN_ID})"
    )
    budget = cli.ActionCommand(
        name="budget",
        help="Show the present rate budget of a connection",
        func=cli.lazy_load_command(f"{__name__}.show_budget"),
        args=(conn_id, cli.ARG_OUTPUT, cli.ARG_VERBOSE),
    )
    return [cli.GroupCommand(name="lemlist", help="Inspect the lemlist provider", subcommands=(budget,))]


def show_budget(args: Namespace) -> None:
    """Show the present rate budget of a connection; sends nothing to lemlist."""
    from airflow.cli.simple_table import AirflowConsole
    from airflow.models.connection import Connection

    from airflow_provider_lemlist.exceptions import LemlistConfigurationError
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    hook = LemlistHook(args.conn_id)
    # The hook's own way works only within a task; this one also reads connections from the database.
    hook.get_connection = Connection.get_connection_from_secrets  # type: ignore[method-assign]
    try:
        state = {name: round(value, 3) for name, value in hook.budget.state().items()}
    except LemlistConfigurationError as error:
        raise SystemExit(str(error)) from None
    if not state["shared"]:
        raise SystemExit(1)  # the reason was logged
    shown = [{"name": name, "now": state[name], "meaning": meaning} for name, meaning in MEANINGS.items()]
    if args.output in ("json", "yaml"):
        shown = [{name: state[name] for name in MEANINGS}]
    AirflowConsole().print_as(shown, args.output)
