"""Which protocol suits a call: one tree of questions, which the documentation shows and `choose_protocol` walks.

The order of its questions is the advice: who calls decides before what is wanted, since no wish makes a protocol
reachable for those who cannot speak it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from servicelink_contract.rules import Protocol


@dataclass(frozen=True, slots=True)
class ProtocolChoice:
    """A protocol, and the reason why it suits; as text both of them."""

    protocol: Protocol
    reason: str

    def __str__(self) -> str:
        return f"{self.protocol}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Question:
    """A question to whoever chooses: the argument that answers it, and where each answer leads."""

    argument: str
    text: str
    yes: "Question | ProtocolChoice"
    no: "Question | ProtocolChoice"


_AMONG_OWN = Question(
    "streaming",
    "Does one call carry many messages, or last?",
    ProtocolChoice(
        Protocol.GRPC, "it streams in both directions within one call, and holds a sender back that is too fast"
    ),
    Question(
        "ultra_low_latency",
        "Does every millisecond count?",
        ProtocolChoice(
            Protocol.GRPC,
            "all calls share one open connection, and no query has to be read before it is answered",
        ),
        Question(
            "flexible_queries",
            "Do callers need to say which fields they want?",
            ProtocolChoice(Protocol.GRAPHQL, "each caller asks for the fields it needs, all of them in one call"),
            Question(
                "high_performance",
                "Are there very many calls, or large ones?",
                ProtocolChoice(
                    Protocol.GRPC, "its binary messages are small, and generated code reads and writes them"
                ),
                ProtocolChoice(
                    Protocol.REST, "it is the simplest: any tool calls it, and paths are rules that people can read"
                ),
            ),
        ),
    ),
)
TREE = Question(
    "external",
    "Do others call it than your own services: browsers, partners, the public?",
    Question(
        "streaming",
        "Does one call carry many messages, or last?",
        ProtocolChoice(
            Protocol.REST, "it streams an answer to anything that speaks HTTP; browsers cannot call gRPC directly"
        ),
        Question(
            "flexible_queries",
            "Do callers need to say which fields they want?",
            ProtocolChoice(Protocol.GRAPHQL, "callers whom you do not know ask for what they need, over ordinary HTTP"),
            ProtocolChoice(
                Protocol.REST, "whoever calls has a client for it already, and so has everything in between"
            ),
        ),
    ),
    _AMONG_OWN,
)


def choose_protocol(
    *,
    external: bool = False,
    high_performance: bool = False,
    streaming: bool = False,
    ultra_low_latency: bool = False,
    flexible_queries: bool = False,
) -> ProtocolChoice:
    """Answer which protocol suits a call, with the reason; pure.

    `external`: others call than your own services. `streaming`: one call carries many messages, or lasts.
    `ultra_low_latency`: every millisecond counts. `flexible_queries`: callers say which fields they want.
    `high_performance`: there are very many calls, or large ones. The whole tree is in docs/sdk/choosing.md.

        choice = servicelink.choose_protocol(streaming=True)
        print(choice.protocol)  # GRPC
        print(choice.reason)
    """
    answers = {
        "external": external,
        "high_performance": high_performance,
        "streaming": streaming,
        "ultra_low_latency": ultra_low_latency,
        "flexible_queries": flexible_queries,
    }
    place: Question | ProtocolChoice = TREE
    while isinstance(place, Question):
        place = place.yes if answers[place.argument] else place.no
    return place


def render_tree() -> str:
    """Render the tree for the documentation."""
    return "".join(f"{line}\n" for line in _render(TREE, ""))


def _render(place: Question | ProtocolChoice, indent: str) -> Iterator[str]:
    if isinstance(place, ProtocolChoice):
        yield f"{indent}{place}"
        return
    yield f"{indent}{place.text} ({place.argument})"
    for word, following, branch, under in (("yes", place.yes, "├─", "│  "), ("no", place.no, "└─", "   ")):
        first, *rest = _render(following, "")
        yield f"{indent}{branch} {word}: {first}"
        yield from (f"{indent}{under}{line}" for line in rest)
