"""A path that a client is given leads to somewhere below the link's address, whoever chose what is in it."""

import httpx
import pytest
from sdk_bound import World

import servicelink


@pytest.mark.parametrize("prefix", ["/api", "/%61pi/v1/"])
@pytest.mark.parametrize(
    "path",
    [
        "/../admin",
        "/../apiary",
        "../admin",
        "/users/../../../admin",
        "/%2e%2e/admin",
        "/.%2E/admin",
        "/..%2fadmin",
        "/users/..%5c..%5c..%5cadmin",
        "//../admin",
        "/..;a/admin",
        "/users//../../../admin",
        httpx.URL("/../admin"),
    ],
)
async def test_no_path_leads_out_of_a_links_address(world: World, prefix: str, path: str | httpx.URL) -> None:
    world.server.address += prefix
    world.bind()
    with pytest.raises(servicelink.ServiceError) as left:
        await world.connect().get(path)  # type: ignore[arg-type] # a URL is taken as well

    assert type(left.value) is servicelink.ServiceError
    assert world.server.seen == []


@pytest.mark.parametrize("path", ["/a..b/..c", "/users/../me", "/users/%2e%2e/me", "/a%2Fb", "/?next=/../..", ""])
async def test_a_path_below_a_links_address_arrives_as_it_is(world: World, path: str) -> None:
    world.server.address += "/api"
    world.bind()
    await world.connect().get(path)

    arrived = path.partition("?")[0].replace("/users/../", "/") or "/"
    assert world.server.seen[0].scope["raw_path"].decode() == f"/api{arrived}"


@pytest.mark.parametrize("path", ["/\ud800", "//[", "/" + "a" * 100_000])
async def test_a_url_that_is_none_is_its_callers_error(world: World, path: str) -> None:
    world.bind()
    with pytest.raises(servicelink.ServiceError, match="URL") as malformed:
        await world.connect().get(path)

    assert (malformed.value.link, malformed.value.operation) == ("shop/web-to-api", "GET")
    assert world.server.seen == []
