"""Why an `async for` dropped its iterator: by `break` or `return`, or by an exception.

Python tells an iterator nothing about how its loop ended, and the two must not be confused: a
message whose handling raised goes back to be delivered again, one left by `break` was handled.
The frame knows: leaving by `break` or `return` pops the iterator in an instruction of its own,
while an exception unwinds in the middle of another. Where that cannot be read, the answer is
"not by break": the message is then delivered again, which is never a loss.
"""

import dis
import sys
from types import FrameType

_POPS = frozenset(number for name, number in dis.opmap.items() if name in {"POP_TOP", "POP_ITER"})


def dropping() -> FrameType | None:
    """Return the frame that called the caller, a `__del__`; None at the end of the interpreter."""
    try:
        return sys._getframe(2)  # noqa: SLF001
    except ValueError:
        return None


def left_by_break(frame: FrameType | None) -> bool:
    """Return whether the loop of this frame is just dropping its iterator by `break` or `return`.

    To be asked from the iterator's `__del__`, with the frame that called it.
    """
    return (
        frame is not None and frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] in _POPS
    )
