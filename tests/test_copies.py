"""Drafts of likely text: proposed where the same was said before, held back where they missed."""

import itertools
from collections.abc import Sequence

import pytest

from falsework.server.engines.copies import Copies

SAID = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
MOST = 16


def anything(tokens: Sequence[int]) -> list[int]:
    return list(tokens)


def proposals(copies: Copies, said: list[int], answers: Sequence[int]) -> list[int]:
    """Return how long each proposal was while the model says `answers`, drafts or not."""
    lengths = []
    at = 0
    while at < len(answers):
        draft = copies.propose(said + list(answers[:at]), MOST, anything)
        lengths.append(len(draft))
        right = 0
        while right < len(draft) and answers[at + right : at + right + 1] == draft[right:][:1]:
            right += 1
        at += right + 1
    return lengths


def test_what_followed_the_last_time_is_proposed() -> None:
    assert Copies(MOST).propose([*SAID, 1, 2, 3, 4], MOST, anything) == [5, 6, 7, 8]


def test_two_tokens_are_enough_where_no_four_agree() -> None:
    assert Copies(MOST).propose([*SAID, 99, 2, 3], MOST, anything) == [4, 5, 6, 7]


def test_new_text_has_no_proposal() -> None:
    assert Copies(MOST).propose([*SAID, 30, 31, 32, 33], MOST, anything) == []


def test_a_proposal_is_cut_to_what_can_be_said() -> None:
    assert Copies(MOST).propose([*SAID, 1, 2, 3, 4], MOST, lambda tokens: tokens[:2]) == [5, 6]


def test_a_proposal_that_was_right_is_followed_by_one_twice_as_long() -> None:
    assert proposals(Copies(MOST), [*SAID, 1, 2, 3, 4], SAID[4:])[:3] == [4, 8, 16]


def test_no_proposal_is_longer_than_the_step_has_room_for() -> None:
    copies = Copies(MOST)

    assert copies.propose([*SAID, 1, 2, 3, 4], 3, anything) == [5, 6, 7]


def test_a_proposal_that_was_half_right_is_followed_by_one_as_long_as_what_was_right() -> None:
    answers = [*SAID[4:14], 100, *SAID[:12]]

    lengths = proposals(Copies(MOST), [*SAID, 1, 2, 3, 4], answers)

    assert [length for length in lengths if length][:3] == [4, 8, 5]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_proposal_is_longer_than_the_engine_takes(most: int) -> None:
    lengths = proposals(Copies(most), [*SAID, 1, 2, 3, 4], SAID[4:])

    assert max(lengths) == most


def test_after_misses_proposals_become_rare() -> None:
    """The model leaves what it was saying after every second token: each proposal is wrong."""
    misleading = [token for number in range(200) for token in (1, 2, 1000 + number)]

    lengths = proposals(Copies(MOST), [*SAID], misleading)

    proposed = [at for at, length in enumerate(lengths) if length]
    pauses = [b - a for a, b in itertools.pairwise(proposed)]
    assert pauses[:3] == sorted(pauses[:3])
    assert pauses[-1] >= 32
    assert len(proposed) < len(lengths) / 10
