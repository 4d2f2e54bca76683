"""The command line: `servicelink-operator run`."""

import asyncio
import os
import sys

from servicelink_operator import telemetry
from servicelink_operator.doorbell import Doorbell
from servicelink_operator.settings import Settings, SettingsError, parse_settings


def main() -> None:
    """Run the operator; ends with 1 when it failed and with 2 when its settings are wrong."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command not in ("run", "-h", "--help"):
        sys.exit(f"Error: there is no command '{command}'; use `servicelink-operator run`, or --help")
    try:
        settings = parse_settings(arguments if command == "run" else ["--help"], os.environ)
    except SettingsError as error:
        sys.exit("\n".join(f"Error: {problem}" for problem in error.problems))
    telemetry.configure_logging(settings.log_format, settings.log_level)
    sys.exit(asyncio.run(_run(settings)))


async def _run(settings: Settings) -> int:
    doorbell = Doorbell(settings)
    await doorbell.run()
    return 1 if doorbell.failed else 0


if __name__ == "__main__":
    main()
