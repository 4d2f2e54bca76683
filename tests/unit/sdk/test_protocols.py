"""Which protocol is chosen, on every path; and that the page's tree leads where the code does."""

import itertools
import re
from pathlib import Path

import pytest

import servicelink
from servicelink import Protocol, choose_protocol

PAGE = Path(__file__).parents[3] / "docs" / "sdk" / "choosing.md"
WISHES = ("external", "high_performance", "streaming", "ultra_low_latency", "flexible_queries")
EVERY = [dict(zip(WISHES, answers, strict=True)) for answers in itertools.product([False, True], repeat=len(WISHES))]


@pytest.mark.parametrize(
    ("wishes", "protocol", "reason"),
    [
        ((), Protocol.REST, "simplest"),
        (("high_performance",), Protocol.GRPC, "binary"),
        (("ultra_low_latency",), Protocol.GRPC, "open connection"),
        (("streaming",), Protocol.GRPC, "both directions"),
        (("flexible_queries",), Protocol.GRAPHQL, "the fields it needs"),
        (("flexible_queries", "high_performance"), Protocol.GRAPHQL, "the fields it needs"),
        (("flexible_queries", "ultra_low_latency"), Protocol.GRPC, "no query has to be read"),
        (("flexible_queries", "streaming"), Protocol.GRPC, "both directions"),
        (("streaming", "ultra_low_latency"), Protocol.GRPC, "both directions"),
        (("external",), Protocol.REST, "whoever calls"),
        (("external", "high_performance"), Protocol.REST, "whoever calls"),
        (("external", "ultra_low_latency"), Protocol.REST, "whoever calls"),
        (("external", "flexible_queries"), Protocol.GRAPHQL, "ordinary HTTP"),
        (("external", "streaming"), Protocol.REST, "browsers"),
        (("external", "streaming", "flexible_queries"), Protocol.REST, "browsers"),
    ],
)
def test_every_path_leads_to_a_protocol_with_its_reason(
    wishes: tuple[str, ...], protocol: Protocol, reason: str
) -> None:
    choice = choose_protocol(**dict.fromkeys(wishes, True))

    assert choice.protocol is protocol
    assert reason in choice.reason
    assert str(choice) == f"{protocol}: {choice.reason}"


def test_nobody_outside_is_told_to_call_grpc() -> None:
    assert [wishes for wishes in EVERY if wishes["external"] and choose_protocol(**wishes).protocol == "GRPC"] == []


def test_every_wish_can_matter() -> None:
    for wish in WISHES:
        assert any(
            choose_protocol(**{**others, wish: not others[wish]}) != choose_protocol(**others) for others in EVERY
        )


def test_the_arguments_have_names_and_nothing_else_is_taken() -> None:
    with pytest.raises(TypeError):
        choose_protocol(True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        choose_protocol(fast=True)  # type: ignore[call-arg]


def walk(lines: list[str], wishes: dict[str, bool]) -> str:
    """Follow the page's tree as its reader does; answers what stands at its end."""
    while question := re.search(r"\? \((\w+)\)$", lines[0]):
        wanted = "yes" if wishes[question[1]] else "no"
        start = next(number for number, line in enumerate(lines) if re.match(rf"[├└]─ {wanted}: ", line))
        inside = itertools.takewhile(lambda line: line[0] not in "├└", lines[start + 1 :])
        lines = [lines[start].partition(": ")[2], *(line[3:] for line in inside)]
    return lines[0]


@pytest.mark.parametrize(
    "wishes", EVERY, ids=lambda wishes: "-".join(name for name in wishes if wishes[name]) or "none"
)
def test_the_tree_on_the_page_leads_where_the_code_does(wishes: dict[str, bool]) -> None:
    (tree,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)

    assert walk(tree.splitlines(), wishes) == str(choose_protocol(**wishes))


def test_a_choice_says_its_type_at_the_root_of_the_package() -> None:
    assert isinstance(choose_protocol(), servicelink.ProtocolChoice)
