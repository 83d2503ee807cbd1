# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_lemlist.sandbox``: a lemlist to try things on, until Ctrl-C."""

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


ABOUT = {
    "campaign_list": "shape of the list of campaigns",
    "elsewhere_status": "status of the text 'Lead already in other campaign'",
    "restart": "what becomes of starting a campaign that runs",
}


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    from airflow_provider_lemlist.sandbox.limits import WINDOWS
    from airflow_provider_lemlist.sandbox.manners import CHOICES

    take = argparse.ArgumentParser(
        prog="python -m airflow_provider_lemlist.sandbox",
        description="A look-alike of the lemlist API on this machine. It contacts nobody.",
    )
    take.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    take.add_argument(
        "--port", type=int, default=8765, help="port; 0 takes a free one (default: %(default)s)"
    )
    take.add_argument("--api-key", default="sandbox-key", help="the key that works (default: %(default)s)")
    take.add_argument(
        "--limit", choices=tuple(WINDOWS), default="sliding", help="kind of rate limit (default: %(default)s)"
    )
    take.add_argument(
        "--latency", type=float, default=0.0, metavar="S", help="seconds an answer takes longer"
    )
    take.add_argument("--jitter", type=float, default=0.0, metavar="S", help="how far that varies either way")
    take.add_argument("--seed", type=int, default=0, help="same seed: same ids, same chances")
    take.add_argument("--simulate", action="store_true", help="let prospects open, click, accept and reply")
    take.add_argument("--speed", type=float, default=1.0, help="how many times faster prospects react")
    for name, choices in CHOICES.items():
        kind = type(choices[0])
        take.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            choices=choices,
            default=choices[0],
            help=f"{ABOUT[name]} (default: %(default)s)",
        )
    return take


def export(lemlist: Sandbox) -> str:
    """Return the line that gives a shell the connection."""
    return f"export AIRFLOW_CONN_LEMLIST_DEFAULT={shlex.quote(lemlist.airflow_connection())}"


def main() -> int:
    """Run a sandbox until it is interrupted."""
    try:
        from airflow_provider_lemlist.sandbox import Sandbox
    except ImportError as error:
        print(error, file=sys.stderr)
        return 1
    asked = vars(parser().parse_args())
    simulate, speed = asked.pop("simulate"), asked.pop("speed")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with Sandbox(**asked) as lemlist:
            if simulate:
                lemlist.simulate(speed=speed, seed=asked["seed"])
            print(f"lemlist sandbox: {lemlist.origin} (the page), {lemlist.url} (the API)")
            print(export(lemlist), flush=True)
            ended.wait()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        if (code := getattr(error, "errno", None) or 0) > 0:
            # Without the address that some versions of Python put behind it.
            reason = os.strerror(code)
        where = f"{asked['host']}:{asked['port']}"
        told = str(reason).rstrip(".")
        print(f"Cannot listen on {where}: {told}. --port 0 takes a free port.", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
