"""An existing service: it reads an address and a key from two variables, and knows of nothing else. Python alone.

Usage: invoices.py            sends one notification a second, until it is ended
       invoices.py call N     sends N of them; exits with 1 unless all were answered
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

URL = os.environ["NOTIFICATION_SERVICE_URL"]
KEY = os.environ["INTERNAL_API_KEY"]


def notify(order: int) -> str:
    """Send one notification; answers the status, with the error's code if there is one."""
    headers = {"Content-Type": "application/json", "x-service-auth": KEY}
    body = json.dumps({"order": order}).encode()
    request = urllib.request.Request(f"{URL}/notifications", body, headers)  # noqa: S310 (its address is configured)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 (as above)
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.load(error)['error']['code']}"
    except urllib.error.URLError as error:
        return str(error.reason)


def call(times: int) -> str:
    """Send so many; answers how many were answered, and how the others failed."""
    said = Counter(notify(order) for order in range(times))
    failures = [f", {number} x {answer}" for answer, number in said.items() if answer != "202"]
    return "".join([f"{said['202']} of {times} answered", *failures])


def main(words: list[str]) -> None:
    """Do what the command line says."""
    if words:
        said = call(int(words[1]))
        if not said.endswith("answered"):
            sys.exit(said)
        sys.stdout.write(f"{said}\n")
        return
    order = 0
    while True:
        order += 1
        sys.stdout.write(f"order {order}: {notify(order)}\n")
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1:])
