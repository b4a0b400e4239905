"""The words that a mlet is called with, judged before there is an endpoint."""

from __future__ import annotations

import os
import re
import sys
from typing import Callable, List, TypeVar

from .errors import MletError

_Judged = TypeVar("_Judged")


def whole_number(word: str, most: int = 0xFFFF) -> int:
    """A whole number from 1 on, such as a port.

    >>> whole_number("80")
    80
    >>> whole_number("65536")
    Traceback (most recent call last):
    ValueError: '65536' is no whole number from 1 to 65535
    """
    number = int(word) if re.fullmatch("[0-9]{1,20}", word) else 0
    if not 1 <= number <= most:
        raise ValueError(f"{word!r} is no whole number from 1 to {most}")
    return number


def arguments(judge: Callable[[List[str]], _Judged]) -> _Judged:
    """What `judge` makes of the words that the mlet is called with; call this before anything else.

    A ValueError, a LookupError such as that of words[0] where there is none, or a MletError is told in one line and ends
    the mlet with exit code 2. So does argparse by itself: `arguments(parser.parse_args)`. What judges single words is
    here as well: host_port and whole_number.

    `pktxpmgr --check --check-mlet` calls a mlet with `--check-args` before its words, and without an endpoint: that they
    are right is told, and the mlet ends here.
    """
    words = sys.argv[1:]
    is_check = words[:1] == ["--check-args"]
    try:
        judged = judge(words[1:] if is_check else words)
    except (ValueError, LookupError, MletError) as error:
        missing = isinstance(error, IndexError)
        reason = "an argument is missing" if missing else " ".join(str(error).split())
        print(f"{os.path.basename(sys.argv[0])}: {reason}", file=sys.stderr)
        sys.exit(2)
    if is_check:
        print("arguments ok")
        sys.exit(0)
    return judged
