"""API keys have one form, say what is wrong with a text of another, and never show themselves."""

import re
import zlib

import pytest

from servicelink_contract.key import KEY_LENGTH, ApiKey, KeyProblem, MalformedKeyError, parse_key, render_key

KEY = render_key("k7Q2M4ZB", bytes(range(32)))


def test_a_key_has_the_documented_form() -> None:
    assert re.fullmatch(r"slk_k7Q2M4ZB_[A-Za-z0-9_-]{43}_[0-9a-f]{8}", KEY.text)
    assert len(KEY.text) == KEY_LENGTH


def test_the_form_is_the_same_for_ever() -> None:
    """Keys outlive releases: this one was made by the first."""
    assert KEY.text == "slk_k7Q2M4ZB_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8_5b932b1f"
    assert KEY.sha256 == "7b29bf40dac16d08d1a4c70d029cd98d700004f9b03c671122820a05c62fc1b9"


def test_a_rendered_key_is_parsed() -> None:
    assert parse_key(KEY.text) == KEY


def test_a_secret_full_of_underscores_is_parsed() -> None:
    """In base64url 0xff 0xff 0xff is "____"."""
    key = render_key("AAAAAAAA", b"\xff" * 32)

    assert "____" in key.text
    assert parse_key(key.text) == key


@pytest.mark.parametrize("place", range(13, 56))
def test_any_mistyped_character_of_the_secret_is_told_as_such(place: int) -> None:
    other = "A" if KEY.text[place] != "A" else "Q"
    mistyped = KEY.text[:place] + other + KEY.text[place + 1 :]

    with pytest.raises(MalformedKeyError) as refused:
        parse_key(mistyped)

    assert refused.value.problem is KeyProblem.CHECKSUM


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slk_",
        "Bearer " + KEY.text,
        KEY.text + "\n",
        " " + KEY.text,
        KEY.text[:-1],
        KEY.text + "0",
        KEY.text.upper(),
        KEY.text.replace("slk_", "sk_l"),
        KEY.text[:-8] + KEY.text[-8:].upper(),
        KEY.text.replace("k7Q2M4ZB", "k7Q2M4Z_"),
        KEY.text.replace("k7Q2M4ZB", "k7Q2M4Zß"),
        KEY.text[:13] + "=" + KEY.text[14:],
        "\u0661" * 65,
    ],
)
def test_another_text_is_no_key(text: str) -> None:
    with pytest.raises(MalformedKeyError) as refused:
        parse_key(text)

    assert refused.value.problem is KeyProblem.FORM


def test_a_second_spelling_of_the_same_secret_is_no_key() -> None:
    """The last of 43 characters carries two bits too many; if they counted for nothing, a key would have four texts."""
    body = KEY.text[:55] + chr(ord(KEY.text[55]) + 1)
    twin = f"{body}_{zlib.crc32(body.encode()):08x}"

    with pytest.raises(MalformedKeyError) as refused:
        parse_key(twin)

    assert refused.value.problem is KeyProblem.FORM


def test_nothing_shows_the_secret() -> None:
    secret = KEY.text[13:56]

    shown = repr(KEY) + str(KEY) + repr(MalformedKeyError(KeyProblem.CHECKSUM))
    with pytest.raises(MalformedKeyError) as refused:
        parse_key(KEY.text[:-1] + "0")
    shown += str(refused.value)

    assert secret not in shown
    assert "k7Q2M4ZB" in repr(KEY)


@pytest.mark.parametrize(("kid", "secret"), [("short", bytes(32)), ("k7Q2M4Z-", bytes(32)), ("k7Q2M4ZB", bytes(31))])
def test_a_key_is_made_of_a_whole_kid_and_a_whole_secret_only(kid: str, secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no kid|has 32 bytes"):
        render_key(kid, secret)


def test_two_keys_are_equal_only_if_their_texts_are() -> None:
    assert ApiKey("k7Q2M4ZB", "a") != ApiKey("k7Q2M4ZB", "b")
