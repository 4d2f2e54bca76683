"""What tests of the operator's cluster layer share: a client, and a line to the API server that can be broken."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxy import Proxy

from devcluster.testing import Client
from servicelink_operator.cluster.api import Api


class Line(Proxy):
    """A line to the API server.

    `api` is a client at its end, which gives a watch up after a second of silence; `kubeconfig` leads through it.
    """

    api: Api
    kubeconfig: Path


@pytest.fixture
async def api(cluster: Client) -> AsyncIterator[Api]:
    """The API server, as the administrator."""
    made = await Api.connect(str(cluster.kubeconfig))
    yield made
    await made.close()


@pytest.fixture
async def line(cluster: Client, tmp_path: Path) -> AsyncIterator[Line]:
    """A line to the API server that can be broken."""
    with Line.to_api_server(cluster.kubeconfig) as made:
        made.kubeconfig = made.write_kubeconfig(cluster.kubeconfig, tmp_path / "kubeconfig")
        made.api = await Api.connect(str(made.kubeconfig), watch_idle=1.0)
        yield made
        await made.api.close()
