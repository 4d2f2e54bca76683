"""What a kubelet and Prometheus ask over HTTP: /healthz, /readyz, /metrics.

Alive is: the event loop answers and its owner says so. Ready is: every named check is good; `/readyz?verbose` lists
them as the API server's own page does. A standby is ready too, or a rollout of two replicas would never finish.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from servicelink_operator import telemetry

NOT_CHECKED = "not checked yet"


@dataclass(frozen=True, slots=True)
class Check:
    """How one check went, in words."""

    ok: bool
    message: str


class Readiness:
    """Named checks, in the order in which they were named; each is bad until it was first set."""

    def __init__(self, names: Iterable[str] = ("crds", "rights", "guards", "sync", "lease", "removals")) -> None:
        self._checks = dict.fromkeys(names, Check(ok=False, message=NOT_CHECKED))

    def set(self, name: str, ok: bool, message: str) -> None:  # noqa: FBT001 (the name of the check reads before it)
        """Say how a check went; `message` tells what is missing, or what is good to know ("standby")."""
        self._checks[name] = Check(ok, message)

    def render(self, verbose: bool) -> tuple[bool, str]:  # noqa: FBT001 (the query parameter it stands for)
        """Answer whether all checks are good, and the page: all of them if `verbose`, else those that are not."""
        ready = all(check.ok for check in self._checks.values())
        shown = [(name, check) for name, check in self._checks.items() if verbose or not check.ok]
        lines = [f"[{'+' if check.ok else '-'}] {name}: {check.message or 'ok'}" for name, check in shown]
        return ready, "\n".join([*lines, "ready" if ready else "not ready"]) + "\n"


class HealthServer:
    """The server; `is_alive` is asked at each /healthz."""

    def __init__(self, readiness: Readiness, is_alive: Callable[[], bool]) -> None:
        self._readiness = readiness
        self._is_alive = is_alive
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, host: str, port: int) -> int:
        """Listen, and answer on which port (port 0: any free one); raises OSError when that is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host or None, port).start()
        listening: int = self._runner.addresses[0][1]
        return listening

    async def stop(self) -> None:
        """Stop listening and end open connections."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        alive = self._is_alive()
        return web.Response(status=200 if alive else 503, text="ok\n" if alive else "not alive\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        ready, page = self._readiness.render("verbose" in request.query)
        return web.Response(status=200 if ready else 503, text=page)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(telemetry.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
