"""Notifications that nobody has asked for yet, in the order in which they came.

One is found by what it is about, so that those that nobody ever asks for hold up no other.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Type, Union

from .messages import Notification, Received, Sent, Unknown

KEPT_EACH = 256
"""What keeping one costs beside its data, in bytes."""


class Place(NamedTuple):
    """What a notification is about: its socket, its kind and, of NTAG, its packet."""

    sktid: int
    kind: Type[Notification]
    tag: int = 0


class Kept:
    """See above. `cost` is in bytes, about."""

    def __init__(self) -> None:
        self.cost = 0
        # By number, in the order in which they came.
        self._all: OrderedDict[int, Notification] = OrderedDict()
        self._next = 0
        # The numbers at each place, in that order. A packet has hardly ever more than one.
        self._places: Dict[Place, Union[Deque[int], List[int]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def next(self) -> int:
        """The number of the next that comes."""
        return self._next

    def keep(self, notification: Notification) -> None:
        """The last that came."""
        number, self._next = self._next, self._next + 1
        self._all[number] = notification
        place = _place(notification)
        if place not in self._places:
            self._places[place] = [] if place.kind is Sent else deque()
        self._places[place].append(number)
        self.cost += _cost(notification)

    def first_at(self, places: Iterable[Place]) -> Optional[int]:
        """The number of the first that is about one of these."""
        return min((self._places[place][0] for place in places if place in self._places), default=None)

    def first(self, wanted: Callable[[Notification], bool]) -> Optional[int]:
        """The number of the first that is wanted; those before it are looked at."""
        return next((number for number, kept in self._all.items() if wanted(kept)), None)

    def take(self, number: int) -> Notification:
        """The one of this number, which is not kept any longer."""
        notification = self._all.pop(number)
        self.cost -= _cost(notification)
        place = _place(notification)
        numbers = self._places[place]
        if isinstance(numbers, deque) and numbers[0] == number:
            numbers.popleft()
        else:
            numbers.remove(number)
        if not numbers:
            del self._places[place]
        return notification

    def forget(self, sktid: int, before: int) -> None:
        """Drops all of this socket that came before the one of this number."""
        for place in [place for place in self._places if place.sktid == sktid]:
            self.forget_at(place, before)

    def forget_at(self, place: Place, before: Optional[int] = None) -> None:
        """Drops all that are about this, or those that came before the one of this number."""
        for number in list(self._places.get(place, ())):
            if before is None or number < before:
                self.take(number)


def _place(notification: Notification) -> Place:
    return Place(notification.sktid, type(notification), notification.tag if isinstance(notification, Sent) else 0)


def _cost(kept: Notification) -> int:
    data = kept.data if isinstance(kept, Received) else b""
    data = kept.payload if isinstance(kept, Unknown) else data
    return KEPT_EACH + len(data)
