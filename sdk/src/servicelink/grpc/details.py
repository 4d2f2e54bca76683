"""What grpcio, or the gRPC library of a server, says of a call that itself ended, told in words of ours.

Its words may quote what the other side sent, so none of them goes on. Nor are they proof: a server that passes on an
error of its own calls sends the same.
"""

import re
from urllib.parse import unquote

# Of a call that was given no connection; the last is what versions before 1.8x say of names.
_NOT_CONNECTED = (
    "connections to all backends failing",
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed ",
)
# What the words hold, and what it means; the first that is found counts.
_REASONS = (
    ("errors resolving ", "its name cannot be resolved"),
    ("DNS resolution failed ", "its name cannot be resolved"),
    ("Connection refused", "connection refused"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("Hostname Verification Check failed", "its certificate is for another name"),
    ("is not in peer certificate", "its certificate is for another name"),
    ("handshake failed", "no TLS could be agreed on (a server without TLS is called by grpc://)"),
)
# grpcio tells of one address of a name only, which may be another than the one where the server is.
_REFUSED_BY = re.compile(r"ipv[46]:([0-9a-f:.%BD]{2,60}): Failed to connect to remote host: Connection refused")
# All that grpcio (C core), grpc-go, grpc-java, grpc-js and grpc-dotnet say; the group is the limit.
_SIZES = r"message larger than max \([0-9]+ vs\.? ([0-9]{1,20})\)+"
_TAKEN_BY_SERVER = (
    rf"(?:SERVER: |grpc: )?[Rr]eceived {_SIZES}",
    r"grpc: (?:received )?message after decompression larger than max (?:\([0-9]+ vs\. )?([0-9]{1,20})\)?",
    r"(?:Compressed |Decompressed )?gRPC message exceeds maximum size ([0-9]{1,20})(?:: [0-9]+(?: bytes read)?)?",
    r"Received message exceeds the maximum configured message size\.",
)
_SENT_BY_SERVER = (
    rf"(?:SERVER: Sent|Sent|grpc: trying to send) {_SIZES}",
    r"Sending message exceeds the maximum configured message size\.",
)
_SEND_LESS = "Send less at once, or have the server take more (grpc.max_receive_message_length, in one of grpcio's)"
_TAKE_MORE = 'Make the client with channel_options=[("grpc.max_receive_message_length", ...)], in bytes'
_SEND_MORE = (
    'Send less at once, or make the client with channel_options=[("grpc.max_send_message_length", ...)], in bytes'
)
_ASK_LESS = "Ask for less at once, or have the server send more (grpc.max_send_message_length, in one of grpcio's)"
# What the words are, what is larger than something, and what helps.
_TOO_LARGE = [
    (re.compile(rf"(?:Stream removed \()?{words}"), problem, step)
    for words, problem, step in (
        (f"CLIENT: Received {_SIZES}", "the answer is larger than {} the client takes", _TAKE_MORE),
        (f"CLIENT: Sent {_SIZES}", "the message is larger than {} the client sends", _SEND_MORE),
        *((words, "the message is larger than {} the server takes", _SEND_LESS) for words in _TAKEN_BY_SERVER),
        *((words, "the answer is larger than {} the server sends", _ASK_LESS) for words in _SENT_BY_SERVER),
        (
            # C core, of either side.
            "Decompressed message larger than max",
            "a message is larger than {} its receiver takes once it is decompressed",
            f"{_SEND_LESS}. If it is the answer: {_TAKE_MORE}",
        ),
    )
]


def tell_not_connected(details: str) -> str | None:
    """Answer why there was no connection, None where that is not what the words say."""
    if not details.startswith(_NOT_CONNECTED):
        return None
    reason = next((reason for words, reason in _REASONS if words in details), None)
    refused = _REFUSED_BY.search(details)
    by = "" if refused is None else f" by {unquote(refused[1])}, the last address tried"
    return "not connected" if reason is None else f"not connected: {reason}{by}"


def tell_too_large(details: str) -> tuple[str, str] | None:
    """Answer which message was too large for whom, and what helps; None where that is not what the words say."""
    for words, problem, step in _TOO_LARGE:
        found = words.fullmatch(details)
        if found is not None:
            limit = next(filter(None, found.groups()), None)
            return problem.format("what" if limit is None else f"the {limit} bytes that"), step
    return None
