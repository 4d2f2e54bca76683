"""What tests of the operator's cluster layer share: a client, and a line to the API server that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from devcluster.testing import Client
from servicelink_operator.cluster.api import Api


class Line:
    """A TCP line to the API server, passed through untouched until it is cut or falls silent.

    `api` is a client at its end, which gives a watch up after a second of silence; `kubeconfig` leads through it.
    """

    api: Api
    kubeconfig: Path

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._silence_new = False
        # Silent connections swallow what they are sent.
        self._silent: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def open(self) -> int:
        """Listen, and answer on which port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """End every connection and every new one."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Let new connections through."""
        self._is_cut = False

    def silence(self, *, new: bool = False) -> None:
        """Keep the connections that there are, and let nothing through on them, nor on new ones if `new`."""
        self._silent |= self._writers
        self._silence_new = new

    async def close(self) -> None:
        """End every connection and stop listening."""
        self.cut()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        if self._silence_new:
            self.silence(new=True)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if sink not in self._silent:
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            pass
        finally:
            self._writers.discard(sink)
            sink.transport.abort()


@pytest.fixture
async def api(cluster: Client) -> AsyncIterator[Api]:
    """The API server, as the administrator."""
    made = await Api.connect(str(cluster.kubeconfig))
    yield made
    await made.close()


@pytest.fixture
async def line(cluster: Client, tmp_path: Path) -> AsyncIterator[Line]:
    """A line to the API server that can be cut."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    server = config["clusters"][0]["cluster"]
    address = urlsplit(server["server"])
    made = Line(address.hostname or "", address.port or 0)
    server["server"] = f"https://127.0.0.1:{await made.open()}"
    made.kubeconfig = tmp_path / "kubeconfig"
    made.kubeconfig.write_text(yaml.safe_dump(config))
    made.api = await Api.connect(str(made.kubeconfig), watch_idle=1.0)
    yield made
    await made.api.close()
    await made.close()
