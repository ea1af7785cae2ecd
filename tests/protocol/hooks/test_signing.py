"""Requests of webhooks are signed as Standard Webhooks has it."""

import base64

import pytest

from fanline.protocol.hooks.signing import BadSecretError, batch_id, key_of, signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_request_is_signed_as_in_the_example_of_the_specification() -> None:
    headers = signed_headers(key_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_" + "A" * 100, "whsec_MfKQ9r8GKYqr!!"],
)
def test_what_is_no_secret_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(BadSecretError) as caught:
        key_of(secret)
    assert not secret or secret.removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"


def test_keys_of_all_lengths_that_the_specification_allows_are_taken() -> None:
    for size in (24, 32, 64):
        assert len(key_of("whsec_" + base64.b64encode(bytes(size)).decode())) == size


def test_the_same_events_have_the_same_id_and_others_another_one() -> None:
    assert batch_id(["a", "b"]) == batch_id(["a", "b"])
    assert len({batch_id(ids) for ids in (["a", "b"], ["b", "a"], ["a"], ["ab"])}) == 4
