"""Free TCP ports that stay free until their component has bound them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def reserved(address: str, count: int) -> Iterator[list[int]]:
    """Hold `count` free ports of an address for the length of the block.

    Each is held by a bound socket that does not listen; a component joins it with SO_REUSEPORT (etcd's
    `--socket-reuse-port`, Kubernetes' `--permit-port-sharing`). Picking a port and letting go of it would leave a
    moment in which any other process can take it.
    """
    with ExitStack() as held:
        yield [_hold(held, address) for _ in range(count)]


def _hold(held: ExitStack, address: str) -> int:
    sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((address, 0))
    port: int = sock.getsockname()[1]
    return port
