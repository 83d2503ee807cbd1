# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_lemlist``: the commands of ``airflow lemlist``, on every Airflow."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from airflow_provider_lemlist.cli import get_cli_commands


class _Parser(argparse.ArgumentParser):
    """A parser that exits with status 1 after an error: 2 is what ``plan`` says of differences."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: error: {message}\n")


def main() -> None:
    """Run the command that the arguments name."""
    (lemlist,) = get_cli_commands()
    parser = _Parser(prog="python -m airflow_provider_lemlist", description=lemlist.help)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in lemlist.subcommands:
        options = commands.add_parser(
            command.name, help=command.help, description=command.description, epilog=command.epilog
        )
        for arg in command.args:
            arg.add_to_parser(options)
        options.set_defaults(func=command.func)
    args = parser.parse_args()
    args.func(args)


if __name__ == "__main__":
    main()
