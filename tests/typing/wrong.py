"""Mistakes that a type checker must find: every line with an `error:` comment, and no other."""

import servicelink
from servicelink import sync


async def call() -> None:
    """Make mistakes."""
    payments = servicelink.connect("payments")
    await payments.get("/", follow_redirects=True)  # error: no such option
    await payments.get("/", timeout="5")  # error: no number
    payments.get("/").json()  # error: not awaited
    servicelink.connect("payments", retry=1)  # error: no such setting
    servicelink.connect("payments", interceptors=[object()])  # error: no interceptor
    with sync.connect("payments") as plain:
        await plain.get("/")  # error: nothing to await
