"""Close reasons and exceptions."""

import re

from fanline.protocol.errors import CloseReason, ErrorCode, FrameError, HttpError, MessageError, ProtocolError
from fanline.protocol.websocket.frames import decode_close


def test_every_close_reason_may_be_sent_and_fits_a_control_frame() -> None:
    for reason in set(CloseReason) - {CloseReason.ABNORMAL}:  # which stands for a missing close frame
        payload = reason.code.to_bytes(2, "big") + reason.text.encode()
        assert len(payload) <= 125
        assert decode_close(payload) == (reason.code, reason.text)
    assert len({reason.code for reason in CloseReason}) == len(CloseReason)


def test_error_codes_are_stable_snake_case_words() -> None:
    assert all(re.fullmatch(r"[a-z_]+", code) for code in ErrorCode)


def test_every_error_is_a_protocol_error_and_keeps_its_arguments() -> None:
    message = MessageError(ErrorCode.TOO_LARGE, "too big", "r1")
    assert (message.code, message.request, str(message)) == ("too_large", "r1", "too big")
    assert str(FrameError(CloseReason.TOO_BIG)) == CloseReason.TOO_BIG.text
    http = HttpError(405, "no", (("Allow", "GET"),))
    assert (http.status, http.headers) == (405, (("Allow", "GET"),))
    assert all(isinstance(error, ProtocolError) for error in (message, http, FrameError(CloseReason.SLOW)))
