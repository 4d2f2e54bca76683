"""The called service: a catalogue that answers GraphQL, by graphql-core alone; any other library would do.

The middleware judges what is asked before this code sees it: types of operations, their names, and root fields.
"""

from dataclasses import dataclass
from typing import Any

import uvicorn
from graphql import GraphQLError, build_schema, graphql
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import servicelink

SCHEMA = build_schema("""
type Product { id: ID!, name: String!, stars: Int }
type Query {
  product(id: ID!): Product!
  products: [Product!]!
  "What we pay for them: nobody's business but the buyers'."
  purchasePrices: [Int!]!
}
type Mutation { review(id: ID!, stars: Int!): Product! }
""")


@dataclass
class Product:
    """Something to buy, and how much the last who reviewed it liked it."""

    id: str
    name: str
    stars: int | None = None


class Catalog:
    """The root of every operation; graphql-core calls the method that a field is named after."""

    def __init__(self) -> None:
        self._products = {id_: Product(id_, name) for id_, name in (("1", "kettle"), ("2", "teapot"))}

    def products(self, _info: Any) -> list[Product]:
        """Answer all of them."""
        return list(self._products.values())

    def product(self, _info: Any, id: str) -> Product:  # noqa: A002 (the argument's name is the schema's)
        """Answer one of them; raises GraphQLError with a code that clients can tell."""
        if id not in self._products:
            raise GraphQLError("there is no such product", extensions={"code": "NOT_FOUND"})
        return self._products[id]

    def purchasePrices(self, _info: Any) -> list[int]:  # noqa: N802 (as above)
        """Answer what no link allows."""
        return [700, 900]

    def review(self, info: Any, id: str, stars: int) -> Product:  # noqa: A002 (as above)
        """Take note of what somebody thinks of a product."""
        product = self.product(info, id)
        product.stars = stars
        return product


CATALOG = Catalog()


async def answer(request: Request) -> JSONResponse:
    """Execute one operation."""
    asked = await request.json()
    result = await graphql(
        SCHEMA,
        asked["query"],
        root_value=CATALOG,
        variable_values=asked.get("variables"),
        operation_name=asked.get("operationName"),
    )
    return JSONResponse(result.formatted)


async def show_health(request: Request) -> PlainTextResponse:
    """Answer the kubelet, which has no link."""
    return PlainTextResponse("ok\n")


ROUTES = [Route("/graphql", answer, methods=["POST"]), Route("/healthz", show_health)]
app = servicelink.LinkMiddleware(Starlette(routes=ROUTES), exempt=("/healthz",))

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8080, access_log=False)  # noqa: S104 (a Pod's address is not known before)
