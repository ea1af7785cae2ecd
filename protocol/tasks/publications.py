"""What may be published to a task's channel, decided before it is stored. Pure."""

from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.events import TaskEvent, event_of
from fanline.protocol.tasks.leniency import understood
from fanline.protocol.tasks.states import ENGINE_EVENTS


def check_publication(envelope: Envelope) -> None:
    """MessageError for an event that every fold would leave out: its data cannot be read, or only the engine says it.

    Whether an event fits the state of the task is known when it comes back from the stream, and not before.
    """
    event = event_of_producer(envelope)
    if event is not None:
        understood(envelope, event)


def event_of_producer(envelope: Envelope) -> TaskEvent | None:
    """The task event of an envelope, if it is one. MessageError for what only the engine says."""
    if envelope.event == TaskEvent.SNAPSHOT:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"only the engine says {envelope.event}")
    event = event_of(envelope)
    if event is not None and _is_engines(envelope, event):
        raise MessageError(ErrorCode.PERMISSION_DENIED, f"only the engine says {event}, and signs it")
    return event


def _is_engines(envelope: Envelope, event: TaskEvent) -> bool:
    """Whether only the engine may say this. That a task was cancelled its producer says, too, but not by force."""
    if event is not TaskEvent.CANCELLED:
        return event in ENGINE_EVENTS
    said = envelope.value
    return isinstance(said, dict) and said.get("forced", False) is not False


def is_default_task(channel: str) -> bool:
    """Whether this is a task wherever the settings say nothing else, which a producer does not know."""
    return namespace_of(channel) == "task"
