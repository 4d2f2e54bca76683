"""Somebody without a link: knows the address, has no key, and calls all the same.

Usage: stranger.py [URL]    prints the status and, of a refusal, the error's code
"""

import json
import sys
import urllib.error
import urllib.request

URL = "http://notification.shop.svc:8080/notifications"


def call(url: str) -> str:
    """Make one call; answers the status and the code of the error, if there is one."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, b'{"order": 1}', headers)  # noqa: S310 (an address is its user's choice)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 (as above)
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.load(error)['error']['code']}"


if __name__ == "__main__":
    sys.stdout.write(f"{call(*(sys.argv[1:] or [URL]))}\n")
