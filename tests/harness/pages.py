"""The Python of the documentation's pages, and running it as its readers would; and applications to call from it."""

import ast
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn


def blocks(page: Path) -> list[str]:
    """Answer the Python blocks of a page, also those inside of lists."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return ["".join(line.removeprefix(indent) for line in text.splitlines(keepends=True)) for indent, text in found]


def files_of(page: Path) -> dict[str, str]:
    """Answer the blocks that begin with a file's name."""
    named = {match[1]: text for text in blocks(page) if (match := re.match(r"# (\w+)\.py\n", text))}
    assert named
    return named


async def run(text: str, page: str, names: dict[str, Any]) -> None:
    """Run Python as if it were typed in, awaits and all."""
    code = compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # noqa: S307 (our own page)
    if result is not None:
        await result


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application in a thread of its own, so that synchronous lines may call it; answers its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none", **options))
    # It listens from here on, so that nobody need wait for the server.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
