"""The command line: `servicelink-operator run`, `servicelink-operator eject`."""

import asyncio
import gc
import os
import sys
from typing import NoReturn

from servicelink_operator import telemetry
from servicelink_operator.doorbell import Doorbell
from servicelink_operator.eject import eject
from servicelink_operator.settings import Settings, SettingsError, parse_settings

_USAGE = """\
usage: servicelink-operator run [flags]     serve links until a signal; --help lists the flags
       servicelink-operator eject [flags]   take every binding and verifier out of all workloads again, before an
                                            uninstallation; the operator must be frozen
"""


def main() -> None:
    """Run a command; ends with 1 when it failed and with 2 when it was asked for wrongly."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return
    if command not in ("run", "eject"):
        _refuse(f"there is no command '{command}'\n{_USAGE}")
    try:
        settings = parse_settings(arguments, os.environ)
    except SettingsError as error:
        _refuse(*error.problems)
    telemetry.configure_logging(settings.log_format, settings.log_level)
    # Caches are large and hold no cycles: going through all of them for every 700 new objects costs a fifth of a start.
    gc.set_threshold(50_000, 20, 50)
    sys.exit(asyncio.run(eject(settings) if command == "eject" else _run(settings)))


def _refuse(*problems: str) -> NoReturn:
    sys.stderr.write("".join(f"Error: {problem}\n" for problem in problems))
    sys.exit(2)


async def _run(settings: Settings) -> int:
    doorbell = Doorbell(settings)
    await doorbell.run()
    return 1 if doorbell.failed else 0


if __name__ == "__main__":
    main()
