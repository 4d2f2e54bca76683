"""Fixtures of tests that run operators as processes; a conftest imports those that its tests have."""

from collections.abc import Callable, Iterator

import pytest
from installation import Operator, Product, install
from shop import Shop, Writer, open_shops

from devcluster.testing import wait_until


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The chart, installed in a cluster of this module's own; nothing runs yet."""
    with install(tmp_path_factory.mktemp("operator")) as made:
        yield made


@pytest.fixture(scope="module")
def operator(product: Product) -> Operator:
    """A running operator that leads."""
    made = product.start()
    wait_until(made.leads)
    return made


@pytest.fixture
def shops(product: Product, operator: Operator) -> Iterator[Callable[[], Shop]]:
    """`shops()` makes a namespace; all go after the test."""
    with open_shops(product.admin) as make:
        yield make


@pytest.fixture
def shop(shops: Callable[[], Shop]) -> Shop:
    """A namespace of this test's own."""
    return shops()


@pytest.fixture
def write() -> Writer:
    """Writes the YAML that users write."""
    return Writer()
