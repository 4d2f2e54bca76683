"""What reporters of errors collect: errors, and the locals of their frames."""

from collections.abc import Iterator
from types import FrameType


def frames_of(error: BaseException | None) -> Iterator[FrameType]:
    """Answer the frames of an error and of those that it came of, as reporters walk them; none of the tests' own."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "/tests/" not in trace.tb_frame.f_code.co_filename:
                yield trace.tb_frame
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def leaks_of(error: BaseException, secret: str) -> list[str]:
    """Answer where the secret is."""
    found = [] if secret not in f"{error!r} {error} {vars(error)}" else ["the error"]
    for frame in frames_of(error):
        names = [name for name, value in frame.f_locals.items() if secret in repr(value)]
        found += [f"{frame.f_code.co_qualname}: {name}" for name in names]
    return found
