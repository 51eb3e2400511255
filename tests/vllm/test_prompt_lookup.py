"""Drafts of likely text: proposed where the same was said before, held back where they missed."""

import itertools
from collections.abc import Sequence

import pytest

from falsework.server.engines.vllm.prompt_lookup import PromptLookupDrafter

SAID = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
MOST = 16


def proposed(said: list[int], most: int = MOST) -> list[int]:
    copies = PromptLookupDrafter()
    copies.observe(said)
    return copies.propose([], most)


def proposals(said: list[int], answers: Sequence[int], most: int = MOST) -> list[int]:
    """Return how long each proposal was while the model says `answers`, drafts or not."""
    copies = PromptLookupDrafter()
    lengths = []
    at = 0
    while at < len(answers):
        copies.observe(said + list(answers[:at]))
        draft = copies.propose([], most)
        lengths.append(len(draft))
        right = 0
        while right < len(draft) and answers[at + right : at + right + 1] == draft[right:][:1]:
            right += 1
        at += right + 1
    return lengths


def test_what_followed_the_last_time_is_proposed() -> None:
    assert proposed([*SAID, 1, 2, 3, 4]) == [5, 6, 7, 8]


def test_two_tokens_are_enough_where_no_four_agree() -> None:
    assert proposed([*SAID, 99, 2, 3]) == [4, 5, 6, 7]


def test_two_tokens_are_too_few_where_the_last_is_known_text() -> None:
    copies = PromptLookupDrafter()
    copies.observe([*SAID, 99, 2, 3])
    assert copies.propose([], MOST, chosen=False) == []

    copies.observe([*SAID, 1, 2, 3, 4])
    assert copies.propose([], MOST, chosen=False) == [5, 6, 7, 8]


def test_new_text_has_no_proposal() -> None:
    assert proposed([*SAID, 30, 31, 32, 33]) == []


def test_a_proposal_is_cut_to_what_can_be_said() -> None:
    copies = PromptLookupDrafter()
    copies.observe([*SAID, 1, 2, 3, 4])

    assert copies.propose([], MOST, allowed=lambda tokens: tokens[:2]) == [5, 6]


def test_a_proposal_that_was_right_is_followed_by_one_twice_as_long() -> None:
    assert proposals([*SAID, 1, 2, 3, 4], SAID[4:])[:3] == [4, 8, 16]


def test_no_proposal_is_longer_than_the_step_has_room_for() -> None:
    assert proposed([*SAID, 1, 2, 3, 4], most=3) == [5, 6, 7]


def test_a_proposal_that_was_half_right_is_followed_by_one_as_long_as_what_was_right() -> None:
    answers = [*SAID[4:14], 100, *SAID[:12]]

    lengths = proposals([*SAID, 1, 2, 3, 4], answers)

    assert [length for length in lengths if length][:3] == [4, 8, 5]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_proposal_is_longer_than_the_engine_takes(most: int) -> None:
    lengths = proposals([*SAID, 1, 2, 3, 4], SAID[4:], most)

    assert max(lengths) == most


def test_the_tokens_before_may_be_a_draft_themselves() -> None:
    copies = PromptLookupDrafter()
    copies.observe([*SAID, 1, 2])

    assert copies.propose([3, 4], MOST) == [5, 6, 7, 8]


def test_known_text_is_proposed_as_it_is_until_it_is_said_otherwise() -> None:
    copies = PromptLookupDrafter()
    said: list[int] = []
    proposed = []
    for _ in range(4):
        copies.observe(said)
        proposed.append(copies.propose_open_end([], "a place", [7]))
        said += [8]  # never what was proposed

    assert proposed == [[7], [], [], [7]]


def test_what_missed_in_one_place_is_no_less_likely_in_another() -> None:
    copies = PromptLookupDrafter()
    said = [*SAID, 1, 2, 3, 4]
    copies.observe(said)
    assert copies.propose([], MOST, "a place")

    copies.observe([*said, 99])
    copies.observe([*said, 99, 1, 2, 3, 4])

    assert copies.propose([], MOST, "a place") == []
    assert copies.propose([], MOST, "another place") == [99, 1, 2, 3]


def test_a_part_behind_a_wrong_one_is_neither_right_nor_wrong() -> None:
    copies = PromptLookupDrafter()
    said = [*SAID, 1, 2, 3, 4]
    copies.observe(said)
    first = copies.propose([], MOST, "first")
    assert copies.propose(first, MOST, "second")

    copies.observe([*said, 99])
    copies.observe([*said, 99, 1, 2, 3, 4])

    assert copies.propose([], MOST, "first") == []
    assert copies.propose([], MOST, "second")


def test_after_misses_proposals_become_rare() -> None:
    """The model leaves what it was saying after every second token: each proposal is wrong."""
    misleading = [token for number in range(200) for token in (1, 2, 1000 + number)]

    lengths = proposals([*SAID], misleading)

    proposed = [at for at, length in enumerate(lengths) if length]
    pauses = [b - a for a, b in itertools.pairwise(proposed)]
    assert pauses[:3] == sorted(pauses[:3])
    assert pauses[-1] >= 32
    assert len(proposed) < len(lengths) / 10
