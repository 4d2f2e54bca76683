"""Deciding about a call: its key or certificate against the verifier's files, then the link's rules.

`VerifierFiles` keeps the newest verifier of a folder; `SharedKeys` is what stands in where there is no operator. Either
answers a `Desk`, one generation of what is accepted, which decides and remembers what it worked out. All that could go
wrong refuses: no files, files of two revisions, a path with two readings. Light on purpose (the standard library and
the contract), since authorizers and servers of every kind stand on it.
"""

from servicelink.verify.desk import VerifierIndex, plan_index
from servicelink.verify.files import VerifierFiles, observe_index
from servicelink.verify.shared import SHARED_KEY, SharedKeys
from servicelink.verify.verdicts import (
    OVERRIDDEN,
    Allowed,
    Call,
    Code,
    Decision,
    Desk,
    Guard,
    Known,
    Now,
    Peer,
    Refused,
    RestCall,
    RpcCall,
    decide,
)

__all__ = [
    "OVERRIDDEN",
    "SHARED_KEY",
    "Allowed",
    "Call",
    "Code",
    "Decision",
    "Desk",
    "Guard",
    "Known",
    "Now",
    "Peer",
    "Refused",
    "RestCall",
    "RpcCall",
    "SharedKeys",
    "VerifierFiles",
    "VerifierIndex",
    "decide",
    "observe_index",
    "plan_index",
]
