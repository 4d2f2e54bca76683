"""A TCP line to the API server that a test breaks and mends.

TLS goes through untouched, from end to end: the API server's certificate is good for loopback, where the line begins.
It runs in a thread of its own, so that tests with and without an event loop can have one.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import yaml

T = TypeVar("T")
# Closing then resets the connection instead of ending it in order.
_RESET = struct.pack("ii", 1, 0)


class _Link:
    """One connection: its two ends, and a gate each way through which bytes go while it is open."""

    def __init__(self, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter | None]) -> None:
        self.ends = ends
        self.there, self.back = asyncio.Event(), asyncio.Event()

    def reset(self) -> None:
        """End it at both ends, as a host does that was restarted."""
        for end in self.ends:
            if end is not None and not end.transport.is_closing():
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()


class Proxy:
    """The line to `host:port`, on a free port of loopback; use it as a context manager.

    `asked` counts the connections that were asked for, also those that were refused.
    """

    def __init__(self, host: str, port: int) -> None:
        self.asked = 0
        self.port = 0
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self._hangs = False
        self._server: asyncio.Server | None = None

    @classmethod
    def to_api_server(cls, kubeconfig: Path) -> Self:
        """Make the line to the API server of a kubeconfig."""
        address = urlsplit(_cluster(yaml.safe_load(kubeconfig.read_text()))["server"])
        return cls(address.hostname or "", address.port or 443)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def write_kubeconfig(self, kubeconfig: Path, path: Path) -> Path:
        """Write a kubeconfig to `path` that leads through the line, else like the given one; answer `path`."""
        config = yaml.safe_load(kubeconfig.read_text())
        _cluster(config)["server"] = f"https://127.0.0.1:{self.port}"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def mend(self) -> None:
        """Let everything through: new connections, and what was held on those that hung."""
        self._call(self._mend)

    def refuse(self) -> None:
        """Reset every connection, and every new one."""
        self._call(self._refuse)

    def hang(self, *, new: bool = True) -> None:
        """Let nothing through on the connections that there are, nor on new ones if `new`; what is sent is held."""
        self._call(lambda: self._hang(new))

    def hold(self) -> None:
        """Hold what is sent, on all connections; what is answered to what was sent before comes through."""
        self._call(self._hold)

    def cut(self) -> None:
        """Reset the connections that there are, with what is held on them; new ones fare as before."""
        self._call(self._cut)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def _call(self, change: Callable[[], None]) -> None:
        """Make a change in the line's thread, and return when it is made."""

        async def made() -> None:
            change()

        self._run(made())

    def _mend(self) -> None:
        self._refuses = self._hangs = False
        for link in self._links:
            link.there.set()
            link.back.set()

    def _refuse(self) -> None:
        self._refuses = True
        self._cut()

    def _hang(self, new: bool) -> None:  # noqa: FBT001 (the public method takes it by keyword)
        self._refuses, self._hangs = False, new
        for link in self._links:
            link.there.clear()
            link.back.clear()

    def _hold(self) -> None:
        self._refuses, self._hangs = False, True
        for link in self._links:
            link.there.clear()

    def _cut(self) -> None:
        for link in tuple(self._links):
            link.reset()

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        try:
            source, sink = await asyncio.open_connection(*self._target)
        except OSError:
            _Link((writer, None)).reset()
            return
        link = _Link((writer, sink))
        # Looked at only now, since it may have changed while the other end was connected.
        if self._refuses:
            link.reset()
            return
        if not self._hangs:
            link.there.set()
            link.back.set()
        task = self._loop.create_task(self._carry(link, reader, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, link: _Link, reader: asyncio.StreamReader, source: asyncio.StreamReader) -> None:
        """Carry bytes both ways until both ends are closed."""
        writer, sink = link.ends
        assert sink is not None
        self._links.add(link)
        try:
            await asyncio.gather(_pump(link.there, reader, sink), _pump(link.back, source, writer))
        finally:
            self._links.discard(link)
            link.reset()
            for end in (writer, sink):
                with suppress(OSError):
                    await end.wait_closed()


async def _pump(gate: asyncio.Event, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Carry bytes one way until that end closes; what it had sent before still arrives, however late."""
    with suppress(ConnectionError):
        while data := await source.read(65536):
            await gate.wait()
            sink.write(data)
            await sink.drain()
        await gate.wait()
    sink.close()


def _cluster(config: dict[str, Any]) -> dict[str, Any]:
    """Answer the only cluster of a kubeconfig."""
    (entry,) = config["clusters"]
    cluster: dict[str, Any] = entry["cluster"]
    return cluster
