"""What a client makes to be entered, once, and then iterated."""


class EnteredOnce:
    """Base of subscriptions and views, in all programs, with an event loop and without."""

    def __init__(self) -> None:
        self._entered = False

    def _enter_once(self) -> None:
        if self._entered:
            raise RuntimeError("this is entered once: have the client make another one")
        self._entered = True

    def _check_entered(self) -> None:
        """Otherwise the iterator would wait for ever."""
        if not self._entered:
            raise RuntimeError("enter it before you iterate: `async with`, or `with` in plain code")
