"""A shopper: orders over plain HTTP, from whom no link is asked.

Usage: shopper.py ITEM N [URL]    orders one piece N times; prints how many orders were taken, and what came else
"""

import json
import sys
import urllib.error
import urllib.request
from collections import Counter

URL = "http://orders.warehouse.svc:8080/orders"


def order(item: str, url: str) -> str:
    """Order one piece; answers the status."""
    body = json.dumps({"item": item}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 (its user's choice)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (as above)
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.load(error)['detail']}"


if __name__ == "__main__":
    item, times, *where = sys.argv[1:]
    said = Counter(order(item, *(where or [URL])) for _ in range(int(times)))
    others = [f", {number} x {answer}" for answer, number in said.items() if answer != "201"]
    sys.stdout.write("".join([f"{said['201']} of {times} taken", *others, "\n"]))
