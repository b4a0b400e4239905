"""The words that a mlet is called with, judged before there is an endpoint."""

from __future__ import annotations

import os
import sys
from typing import Callable, List, TypeVar

from .errors import MletError

_Judged = TypeVar("_Judged")


def arguments(judge: Callable[[List[str]], _Judged]) -> _Judged:
    """What `judge` makes of the words that the mlet is called with; call this before anything else.

    A ValueError, a LookupError such as that of words[0] where there is none, or a MletError is told in one line and ends
    the mlet with exit code 2. So does argparse by itself: `arguments(parser.parse_args)`.

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
