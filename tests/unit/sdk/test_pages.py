"""The Python of the pages runs: client and server in one process, the key in the environment as on a laptop."""

import ast
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import servicelink
from servicelink_contract.key import render_key

ROOT = Path(__file__).parents[3]
KEY = render_key("AAAAAAAA", b"a" * 32).text


@pytest.mark.parametrize("page", ["README.md", "sdk/README.md"])
async def test_what_a_page_shows_of_both_ends_works(
    page: str, serve: Callable[[Any], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[str] = []

    async def take(request: Request) -> JSONResponse:
        link = servicelink.current_link()
        assert link is not None
        callers.append(link.link)
        return JSONResponse(await request.json())

    app = Starlette(routes=[Route(path, take, methods=["POST"]) for path in ("/notifications", "/v1/charges")])
    address = await serve(app)
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    for name in ("NOTIFICATION_URL", "PAYMENTS_URL"):
        monkeypatch.setenv(name, address)

    text = (ROOT / page).read_text()
    shown = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    # The server's lines before the client's, as in any cluster.
    lines = sorted("".join(shown).splitlines(), key=lambda line: not line.startswith("app."))
    names: dict[str, Any] = {"servicelink": servicelink, "app": app}
    code = compile("\n".join(lines), page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, names)  # noqa: S307 (our own page)
    for name in {"notification", "payments"} & names.keys():
        await names[name].aclose()

    assert len(callers) == 1
