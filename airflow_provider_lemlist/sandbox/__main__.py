# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_lemlist.sandbox``: run a sandbox until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox import Sandbox


HELP = {
    "campaign_list": "shape of the list of campaigns",
    "elsewhere_status": "status of the response 'Lead already in other campaign'",
    "restart": "how a request to start a running campaign is handled",
    "edit_running": "how an update of a step of a running campaign is handled",
    "unknown_fields": "how a field of an update that is not documented is handled",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    from airflow_provider_lemlist.sandbox.limits import WINDOWS
    from airflow_provider_lemlist.sandbox.undocumented import CHOICES

    options = argparse.ArgumentParser(
        prog="python -m airflow_provider_lemlist.sandbox",
        description="Simulate the lemlist API on this machine. No messages are sent.",
    )
    add = options.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8765, help="port; 0 uses a free port (default: %(default)s)")
    add("--api-key", help="the valid API key (default: another one each time)")
    add(
        "--limit", choices=tuple(WINDOWS), default="sliding", help="kind of rate limit (default: %(default)s)"
    )
    add("--latency", type=float, default=0.0, metavar="S", help="seconds added to every response")
    add("--jitter", type=float, default=0.0, metavar="S", help="seconds by which the latency varies")
    add("--seed", type=int, help="seed of the ids and of random faults (default: another one each time)")
    add("--simulate", action="store_true", help="simulate prospects that open, click, accept and reply")
    add("--speed", type=float, default=1.0, help="factor by which prospects react faster")
    add("--tidy-html", action="store_true", help="store messages of emails with tidied HTML")
    add(
        "--activity-page-limit",
        type=int,
        default=100,
        metavar="N",
        help="most activities of one page, whatever limit a request has (default: %(default)s)",
    )
    for name, choices in CHOICES.items():
        add(
            f"--{name.replace('_', '-')}",
            type=type(choices[0]),
            choices=choices,
            default=choices[0],
            help=f"{HELP[name]} (default: %(default)s)",
        )
    return options


def export(lemlist: Sandbox) -> str:
    """Return the shell command that defines the Airflow connection."""
    return f"export AIRFLOW_CONN_LEMLIST_DEFAULT={shlex.quote(lemlist.airflow_connection())}"


def main() -> int:
    """Run a sandbox until it is interrupted; return the exit status."""
    try:
        from airflow_provider_lemlist.sandbox import Sandbox
    except ImportError as error:
        print(error, file=sys.stderr)
        return 1
    options = vars(parser().parse_args())
    simulate, speed = options.pop("simulate"), options.pop("speed")
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    try:
        with Sandbox(**options) as lemlist:
            if simulate:
                lemlist.simulate(speed=speed, seed=options["seed"] or 0)
            print(f"lemlist sandbox: {lemlist.origin} (web page), {lemlist.url} (API)")
            print(export(lemlist), flush=True)
            interrupted.wait()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        if (code := getattr(error, "errno", None) or 0) > 0:
            # Some versions of Python append the address to the text of the error.
            reason = os.strerror(code)
        where, why = f"{options['host']}:{options['port']}", str(reason).rstrip(".")
        print(f"Cannot listen on {where}: {why}. --port 0 uses a free port.", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
