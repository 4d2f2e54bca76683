"""The operator as a process with its own rights, on a control plane that no other test uses.

There is no node, so these tests look at objects; what Pods see, the end-to-end tests show.
"""

from fixtures import operator, product, shop, shops, write
from shop import Shop, Writer

__all__ = ["Shop", "Writer", "operator", "product", "shop", "shops", "write"]
