"""Why the bus did not do what it was asked to do. Each error says whether anything may have been done."""


class BusError(Exception):
    """The bus cannot do it now; str() is one sentence for the person who reads it."""


class StorageFullError(BusError):
    """The store has no room for it now; nothing was done."""


class TooLargeError(BusError):
    """The message is larger than the bus takes, now or later; nothing was done."""


class NoListenerError(BusError):
    """No producer listens there: nothing was done, and waiting would not help."""


class LateError(BusError):
    """There was no answer in time; the request may have been carried out."""


class ConflictError(BusError):
    """The key has another revision by now: nothing was done; read it again."""
