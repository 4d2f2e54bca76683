"""REST: httpx's interface and types over engines of our own, asynchronous and synchronous."""
