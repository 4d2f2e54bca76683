"""Services by name, without generated code: a .proto file or a descriptor set, and messages as dictionaries.

Dictionaries are the JSON mapping of Protocol Buffers (protobuf.dev, "ProtoJSON Format"): 64-bit integers are strings,
`bytes` are base64, enums their names, timestamps RFC 3339. Fields keep the names of the .proto; either spelling is
taken. Everything is in a pool of its own, so that two services may have messages of the same name.
"""

import tempfile
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from servicelink.errors import ServiceError
from servicelink.forks import Lock
from servicelink.grpc.methods import Kind, Method, says_idempotent, tell_missing

# A file's name, or the bytes of a descriptor set.
Proto = str | PathLike[str] | bytes
_KINDS = {
    (False, False): Kind.UNARY_UNARY,
    (False, True): Kind.UNARY_STREAM,
    (True, False): Kind.STREAM_UNARY,
    (True, True): Kind.STREAM_STREAM,
}


@dataclass(frozen=True, slots=True, eq=False)
class NamedMethod:
    """A method of that link, and how a dictionary becomes a request to it (raises ServiceError, TypeError)."""

    method: Method
    parse: Callable[[Any], Message]
    link: str

    def many(self, requests: Any) -> Any:
        """Answer the requests of a method that takes many; raises TypeError for what is one."""
        if requests is None:
            return ()
        if isinstance(requests, Mapping | str) or not isinstance(requests, Iterable | AsyncIterable):
            problem = f"{self.method.operation} takes many messages, and got one {type(requests).__name__}"
            raise TypeError(f"{problem}: pass a list of dictionaries, or another iterable of them")
        return requests


class Schema:
    """The methods of a service, found by name; read when the first one is asked for."""

    def __init__(self, proto: Proto, package: str, service: str, *, link: str, idempotent: Collection[str]) -> None:
        self._proto = proto
        self._link = link
        self._idempotent = idempotent
        self._name = f"{package}.{service}" if package else service
        self._lock = Lock()
        self._methods: dict[str, NamedMethod] | None = None

    @property
    def is_read(self) -> bool:
        """Whether asking costs nothing any more."""
        return self._methods is not None

    def read(self) -> None:
        """Read it; raises ServiceError for what is no description of that service."""
        with self._lock:
            if self._methods is None:
                try:
                    self._methods = self._observe()
                except ServiceError as error:
                    error.link = self._link
                    raise

    def _observe(self) -> dict[str, NamedMethod]:
        service = _observe_service(self._proto, self._name)
        # Those of other services are its stubs'.
        wanted = [name for name in self._idempotent if name.startswith(f"{self._name}/") or "/" not in name]
        if problem := tell_missing(wanted, [f"{self._name}/{one.name}" for one in service.methods]):
            raise ServiceError(problem, next_step="Name it as the .proto does")
        return _methods(service, self._link)

    def method(self, name: str) -> NamedMethod:
        """Find a method: `GetUser` also by `getUser` and `get_user`; raises ServiceError."""
        self.read()
        assert self._methods is not None
        found = self._methods.get(name) or self._methods.get(plain_name(name))
        if found is None:
            known = ", ".join(sorted({one.method.name for one in self._methods.values()}))
            problem = f"{self._name} has no method {name}"
            raise ServiceError(problem, link=self._link, next_step=f"It has {known or 'none'}")
        return found


def _observe_service(proto: Proto, name: str) -> ServiceDescriptor:
    files = FileDescriptorSet()
    try:
        files.ParseFromString(_observe_set(proto))
    except OSError as error:
        problem = f"{_shown(proto)} cannot be read: {error.strerror}"
        raise ServiceError(problem, next_step=f"A path is taken from the folder of the process, {Path.cwd()}") from None
    except DecodeError:
        step = "Pass a .proto file, or what protoc --include_imports --descriptor_set_out makes of it"
        raise ServiceError(f"{_shown(proto)} is no descriptor set", next_step=step) from None
    pool = DescriptorPool()
    try:
        for file in files.file:
            pool.Add(file)
        return pool.FindServiceByName(name)
    except TypeError:
        step = "Make it with protoc --include_imports"
        raise ServiceError(f"{_shown(proto)} imports a file that is not in it", next_step=step) from None
    except KeyError:
        found = [f"package={file.package!r}, service={one.name!r}" for file in files.file for one in file.service]
        step = f"It has {'; '.join(found) or 'none'}"
        raise ServiceError(f"{_shown(proto)} has no service {name}", next_step=step) from None


def _observe_set(proto: Proto) -> bytes:
    if isinstance(proto, bytes):
        return proto
    path = Path(proto)
    return _compile(path) if path.suffix == ".proto" else path.read_bytes()


def _compile(path: Path) -> bytes:
    """Answer the descriptor set of a .proto file; what it imports is looked for in its folder."""
    try:
        from grpc_tools import protoc  # type: ignore[import-untyped] # noqa: PLC0415 - an extra, for .proto files only
    except ImportError:
        step = "Install servicelink[grpc-tools], or pass a descriptor set"
        raise ServiceError(f"{_shown(path)} cannot be read without a compiler", next_step=step) from None
    known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        words = ["protoc", f"-I{path.parent}", f"-I{known}", "--include_imports", f"--descriptor_set_out={made}"]
        path.stat()
        if protoc.main([*words, str(path)]):
            raise ServiceError(f"{_shown(path)} is no valid .proto file", next_step="protoc said why on standard error")
        return made.read_bytes()


def _shown(proto: Proto) -> str:
    return "the descriptor set in proto" if isinstance(proto, bytes) else f"proto={str(proto)!r}"


def _methods(service: ServiceDescriptor, link: str) -> dict[str, NamedMethod]:
    exact = {one.name: _method(service, one, link) for one in service.methods}
    plain: dict[str, list[NamedMethod]] = {}
    for name, method in exact.items():
        plain.setdefault(plain_name(name), []).append(method)
    # What two methods could be is nobody's.
    return {name: found[0] for name, found in plain.items() if len(found) == 1} | exact


def plain_name(name: str) -> str:
    """Answer a method's name as it is compared: `GetUser`, `getUser` and `get_user` are the same."""
    return name.replace("_", "").lower()


def _method(service: ServiceDescriptor, method: MethodDescriptor, link: str) -> NamedMethod:
    pool = service.file.pool
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    path = f"/{service.full_name}/{method.name}"

    def parse(given: Any) -> Message:
        if not isinstance(given, Mapping):
            problem = f"{path[1:]} takes a dictionary, and got {type(given).__name__}"
            raise TypeError(f"{problem}; messages go through client.stub(...)")
        try:
            return json_format.ParseDict(dict(given), request(), descriptor_pool=pool)
        except json_format.ParseError as error:
            reason = str(error).partition("\n")[0]
            problem = f"the request is no {method.input_type.full_name}: {reason}"
            raise ServiceError(problem, link=link, operation=path[1:]) from None

    def render(data: bytes) -> dict[str, Any]:
        return json_format.MessageToDict(
            response.FromString(data),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
            descriptor_pool=pool,
        )

    kind = _KINDS[method.client_streaming, method.server_streaming]
    return NamedMethod(Method(path, kind, _serialize, render, says_idempotent(path, pool), response), parse, link)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
