"""Faults between the operator and the API server, on a control plane of a module's own; each test starts operators."""

from collections.abc import Callable, Iterator

import pytest
from fixtures import product, shop, write
from installation import Product
from shop import Shop, Writer, open_shops

__all__ = ["Shop", "Writer", "product", "shop", "write"]


@pytest.fixture
def shops(product: Product) -> Iterator[Callable[[], Shop]]:
    """`shops()` makes a namespace; all go after the test, and so do operators and their Lease."""
    # An operator of the next test, whose requests are counted, would still have work with links that are going.
    with open_shops(product.admin, until_gone=True) as make:
        yield make
        product.end_all()
