"""What is called: a method of one of the four kinds, and one message to it as it goes through flow and wire."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from inspect import signature
from typing import Any

from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import Message

from servicelink.calls.call import Call
from servicelink.calls.failures import where
from servicelink.calls.options import CallOptions
from servicelink.errors import ServiceError
from servicelink.grpc.address import Target

MetadataPairs = Sequence[tuple[str, str | bytes]]
# gRPC over HTTP/2, "Custom-Metadata"; what begins with `grpc-` is the library's.
_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+", re.ASCII)
_TEXT = re.compile(r"[\x20-\x7e]*", re.ASCII)
_BINARY = "-bin"
_REPEATABLE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


class Kind(Enum):
    """Whether requests and answers are streams; the value is the name that grpcio uses."""

    UNARY_UNARY = "unary_unary"
    UNARY_STREAM = "unary_stream"
    STREAM_UNARY = "stream_unary"
    STREAM_STREAM = "stream_stream"

    @property
    def streams_in(self) -> bool:
        """Whether the client sends several messages."""
        return self in {Kind.STREAM_UNARY, Kind.STREAM_STREAM}

    @property
    def streams_out(self) -> bool:
        """Whether the server answers several messages."""
        return self in {Kind.UNARY_STREAM, Kind.STREAM_STREAM}


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method as generated code names it: `/package.Service/Name`, and how messages become bytes.

    `is_idempotent` tells what its .proto says: that doing it twice does no harm. `answer_type` is the class of its
    answers, None where nobody said.
    """

    path: str
    kind: Kind
    serialize: Callable[[Any], bytes] | None
    deserialize: Callable[[bytes], Any] | None
    is_idempotent: bool = False
    answer_type: type[Message] | None = None

    def pack(self, request: Any) -> bytes:
        """Answer the bytes of a request; what its serializer raises is the caller's mistake, and nothing was sent.

        grpcio would make a status of it, as if the server had answered.
        """
        packed: bytes = request if self.serialize is None else self.serialize(request)
        return packed

    @property
    def operation(self) -> str:
        """`package.Service/Name`."""
        return self.path.removeprefix("/")

    @property
    def name(self) -> str:
        """`Name`."""
        return self.path.rpartition("/")[2]


def says_idempotent(path: str, pool: DescriptorPool) -> bool:
    """Say whether the .proto of a method, where the pool has it, sets an `idempotency_level`."""
    service, _, name = path.removeprefix("/").partition("/")
    try:
        method = pool.FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return False
    return method.GetOptions().idempotency_level in _REPEATABLE


@dataclass(slots=True, eq=False)
class GrpcMessage:
    """What goes to the server: `call.message` of gRPC calls, as interceptors see it.

    `request` is the message, or what yields the messages (None where the caller writes them). `metadata` is what the
    caller gave; what is in `call.metadata` goes before it. `attached` is told of the call of each attempt.
    """

    method: Method
    request: Any = field(repr=False)
    metadata: MetadataPairs = field(default=(), repr=False)
    target: Target | None = None
    wait_for_ready: bool | None = None
    compression: Any = None
    attached: Callable[[Any], None] | None = None


def read_method(
    kind: Kind,
    path: str,
    request_serializer: Callable[[Any], bytes] | None = None,
    response_deserializer: Callable[[bytes], Any] | None = None,
    _registered_method: bool | None = None,  # noqa: FBT001 - generated code passes it
) -> Method:
    """Answer the method that a stub asks a channel for, by the arguments of grpcio's channels."""
    # Generated code passes `User.FromString`, a method of the class.
    owner = getattr(response_deserializer, "__self__", None)
    answer_type = owner if isinstance(owner, type) and issubclass(owner, Message) else None
    repeatable = says_idempotent(path, Default())
    return Method(path, kind, request_serializer, response_deserializer, repeatable, answer_type)


def read_arguments(  # noqa: PLR0917 - grpcio's, in its order
    method: Method,
    request: Any = None,
    timeout: float | None = None,
    metadata: MetadataPairs | None = None,
    credentials: Any = None,
    wait_for_ready: bool | None = None,  # noqa: FBT001 - as above
    compression: Any = None,
    *,
    request_iterator: Any = None,
) -> tuple[GrpcMessage, CallOptions]:
    """Answer the message and options of a call, by the arguments of grpcio's multicallables; raises TypeError."""
    if credentials is not None:
        raise TypeError("a link brings its own credential, so its calls take no call credentials")
    given = request_iterator if request is None else request
    message = GrpcMessage(method, given, tuple(metadata or ()), None, wait_for_ready, compression)
    return message, CallOptions(timeout)


# What is said for several calls at once, since grpcio's calls have no such arguments.
_OF_CLIENT = frozenset({"retries", "attempt_timeout", "idempotent"})


def read_call(method: Method, arguments: Sequence[Any], options: Mapping[str, Any]) -> tuple[GrpcMessage, CallOptions]:
    """As `read_arguments`, of a call as it was written; the TypeError says what a stub's call takes."""
    try:
        return read_arguments(method, *arguments, **options)
    except TypeError:
        unknown = sorted(options.keys() - signature(read_arguments).parameters.keys())
        if not unknown:
            raise
    problem = f"{method.operation} takes no {', '.join(unknown)}, but timeout, metadata, wait_for_ready, compression"
    said = ", ".join(f"{name}=..." for name in unknown if name in _OF_CLIENT)
    mend = f"; of a GrpcClient, client.with_options({said}).stub(...) makes a stub whose calls have it" if said else ""
    raise TypeError(problem + mend)


def tell_missing(wanted: Iterable[str], operations: Collection[str]) -> str | None:
    """Answer what is wrong with names of methods of which none is among these; None where nothing is, or is known."""
    known = {name for operation in operations for name in (operation, operation.rpartition("/")[2])}
    missing = sorted(name for name in wanted if name not in known)
    if not missing or not known:
        return None
    has = ", ".join(sorted(operation.rpartition("/")[2] for operation in operations))
    return f"idempotent names {', '.join(missing)}, which is no method here; there are {has}"


def require_sendable(metadata: MetadataPairs, call: Call) -> None:
    """Raise ServiceError for metadata that cannot be sent; grpcio would say so with all the metadata in its words."""
    for key, value in metadata:
        is_text = isinstance(value, str) and not key.endswith(_BINARY) and _TEXT.fullmatch(value) is not None
        is_binary = isinstance(value, bytes) and key.endswith(_BINARY)
        if not _KEY.fullmatch(key) or not (is_text or is_binary):
            problem = f"the metadata {key!r} cannot be sent"
            step = "Keys are in lower case; values are printable ASCII, or bytes under a key that ends in -bin"
            raise ServiceError(problem, **where(call, step))
