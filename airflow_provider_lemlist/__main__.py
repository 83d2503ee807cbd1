# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_lemlist``: the commands of ``airflow lemlist``, on every Airflow."""

from __future__ import annotations

import argparse
import logging
import sys

from airflow_provider_lemlist.cli import get_cli_commands


def main() -> None:
    """Run the command that the arguments name."""
    (lemlist,) = get_cli_commands()
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_lemlist", description=lemlist.help)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in lemlist.subcommands:
        options = commands.add_parser(command.name, help=command.help, description=command.help)
        for arg in command.args:
            arg.add_to_parser(options)
        options.set_defaults(func=command.func)
    args = parser.parse_args()
    _log_to_stderr()
    args.func(args)


def _log_to_stderr() -> None:
    """Keep log lines out of the output; Airflow 2 writes them to stdout."""
    log = logging.getLogger()
    for handler in [*log.handlers]:
        if getattr(handler, "stream", None) is sys.stdout:
            instead = logging.StreamHandler(sys.stderr)
            instead.setFormatter(handler.formatter)
            log.removeHandler(handler)
            log.addHandler(instead)


if __name__ == "__main__":
    main()
