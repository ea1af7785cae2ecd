"""What a worker itself asks the control process for a client: nothing that the client has shown becomes a header."""

import pytest

from fanline.protocol.errors import HttpError
from fanline.protocol.http.forwarding import BodyReader, posted_head


def test_what_a_client_has_shown_stands_in_one_header() -> None:
    head = posted_head("/monitor/call", 7, "token", "10.0.0.9").decode()
    assert head.startswith("POST /monitor/call HTTP/1.1\r\n")
    assert "\r\nauthorization: Bearer token\r\n" in head
    assert "\r\nx-forwarded-for: 10.0.0.9\r\ncontent-length: 7\r\n" in head
    assert "authorization" not in posted_head("/monitor/call", 7, None, "10.0.0.9").decode()


@pytest.mark.parametrize("shown", ["a\r\nx-evil: 1", "a\nb", "a\x00", "é", "a\u2028b"])
def test_what_cannot_stand_in_a_header_is_refused(shown: str) -> None:
    with pytest.raises(HttpError) as error:
        posted_head("/monitor/call", 7, shown, "10.0.0.9")
    assert shown not in str(error.value)


def test_an_answer_is_read_with_its_status_whatever_its_pieces() -> None:
    whole = b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nhello"
    for cut in range(len(whole)):
        reader = BodyReader()
        reader.feed(whole[:cut])
        assert not reader.whole
        reader.feed(whole[cut:])
        assert (reader.whole, reader.status, bytes(reader.body)) == (True, 404, b"hello")
