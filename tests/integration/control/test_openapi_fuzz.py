"""schemathesis against the OpenAPI of a real server: no 500, and no answer that is not documented."""

import os
import socket
from typing import Any

import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode, checks
from schemathesis.core.result import Ok

from tests.integration.control.test_control_process import API, ask, controlled
from tests.support.seeds import new_seed

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "15"))
CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


def _attack(url: str, mode: GenerationMode, number: int) -> dict[str, int]:
    """Call everything with what the schema allows, and with what it does not; the number of calls for each.
    Some take no parameter that could be wrong.
    """
    schema = schemathesis.openapi.from_url(f"{url}{API}/openapi.json")
    counts: dict[str, int] = {}
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation: Any = result.ok()

        strategy = operation.as_strategy(generation_mode=mode)

        @seed(number)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def call(case: Any) -> None:
            counts[case.operation.label] = counts.get(case.operation.label, 0) + 1
            response = case.call(base_url=url)
            case.validate_response(response, checks=list(CHECKS))

        call()
    return counts


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
async def test_no_call_has_an_answer_that_is_not_documented(mode: GenerationMode) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(110):
        async with controlled(FANLINE_CONTROL_PORT=str(port)) as serve:
            counts = await trio.to_thread.run_sync(_attack, f"http://127.0.0.1:{port}", mode, new_seed())
            assert len(counts) > (25 if mode is GenerationMode.POSITIVE else 15)
            assert (await ask(serve, "/info")).status_code == 200
            assert "cannot be answered" not in serve.stderr_text()
