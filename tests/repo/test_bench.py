"""What a bench says is what was measured."""

import subprocess
import sys
from pathlib import Path

from support.server_process import KEY, Server, free_port

from falsework.bench.cases import CASES, Case, crowd_requests, next_request
from falsework.bench.report import steadiness, table, transcript
from falsework.bench.runner import CaseResult, EndpointResult

CASE = Case("a case", 0.25, {})
OURS = EndpointResult((0.5, 0.3, 0.4), 1, '{"a": 1}')
THEIRS = EndpointResult((2.0, 4.0, 3.0), 2, "something else")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("falsework")), "bench", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"OPENAI_API_KEY": KEY}
    )


def test_a_row_shows_medians_per_call_and_the_share_of_the_first() -> None:
    *_, row = table(["ours", "theirs"], [CaseResult(CASE, (OURS, THEIRS))]).splitlines()

    assert row == "| a case (goal: 0.25) | 0.400 | 1.500 | 0.27 |"


def test_a_time_beside_a_busy_process_is_told_over_the_time_without() -> None:
    busy = EndpointResult((0.6, 0.6, 0.6), 1, "x")

    *_, row = steadiness(
        ["ours", "theirs"],
        [CaseResult(CASE, (OURS, THEIRS)), CaseResult(CASE, (busy, THEIRS), busy=1)],
    ).splitlines()

    assert row == "| a case, beside a busy process | 1.50 | 1.00 |"


def test_what_was_said_is_shown_so_that_unequal_work_is_seen() -> None:
    said = transcript(["ours", "theirs"], [CaseResult(CASE, (OURS, THEIRS))])

    assert '    - ours: {"a": 1}\n    - theirs: something else\n' in said


def test_every_member_of_a_crowd_has_a_tool_of_its_own() -> None:
    (crowd,) = [case for case in CASES if case.crowd]

    names = [request["tools"][0]["function"]["name"] for request in crowd_requests(crowd)]

    assert len(set(names)) == len(names) == 50
    assert crowd.crowd == 16


def test_a_chain_goes_on_with_a_result_for_each_call() -> None:
    calls = [{"id": "a"}, {"id": "b"}]
    request = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 9}

    after = next_request(request, {"tool_calls": calls}, "21")

    assert [message["role"] for message in after["messages"]] == [
        "user", "assistant", "tool", "tool",
    ]  # fmt: skip
    assert after["max_tokens"] == 9


def test_the_command_times_a_running_server(server: Server) -> None:
    said = bench(f"{server.url}/v1", "--runs", "1", "--only", "named")

    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1].startswith(
        "| named call, 1 tool, 2 arguments (goal: 0.25) |"
    )


def test_an_endpoint_that_refuses_is_named(server: Server) -> None:
    said = bench(f"{server.url}/v1", "--runs", "1", "--only", "named", "--key", "wrong")

    assert said.returncode == 1
    assert f"{server.url}/v1 answered 401" in said.stderr


def test_an_endpoint_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"

    said = bench(url)

    assert said.returncode == 1
    assert url in said.stderr
