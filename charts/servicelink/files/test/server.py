"""The called end of `helm test`: it answers whoever has a link, and says by which one.

Usage: server.py VERIFIER    the folder where the operator's verifier is mounted

It refuses whether or not a policy asks for that, since the test is whether it could.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from servicelink.verify import Allowed, RestCall, VerifierFiles

PORT = 8080


def serve(folder: Path) -> None:
    """Serve until ended."""
    verifier = VerifierFiles(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
            verdict = verifier.decide(headers, RestCall(self.command, self.path)).verdict
            if isinstance(verdict, Allowed):
                self.answer(200, {"link": verdict.link})
            else:
                self.answer(403, {"error": {"code": verdict.code, "message": verdict.reason}})

        def answer(self, status: int, body: dict[str, object]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
