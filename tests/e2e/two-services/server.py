"""Answer every GET on port 8080 with this Pod's name."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """One answer for every path."""

    def do_GET(self) -> None:
        """Answer with the host name, which in a Pod is the Pod's."""
        body = os.uname().nodename.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
        """Write at once: a buffered line would be missing from the container's log."""
        sys.stdout.write(f"{format % args}\n")
        sys.stdout.flush()


ThreadingHTTPServer(("", 8080), Handler).serve_forever()
