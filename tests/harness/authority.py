"""The test kit's authority, by the name that tests know it by."""

from servicelink.authority import Authority, Leaf

__all__ = ["Authority", "Leaf"]
