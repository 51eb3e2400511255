"""A grammar travels to the engine's process once."""

import pytest

from falsework.server.engines import Constraint
from falsework.server.engines.vllm.known_grammars import MAX_KNOWN, KnownGrammars

BIG = Constraint(b"key", b"megabytes", prefix=(1, 2), opening="{")


@pytest.fixture
def known() -> KnownGrammars:
    return KnownGrammars()


def test_a_new_grammar_travels_whole(known: KnownGrammars) -> None:
    assert known.shortened(BIG) is BIG


def test_a_known_grammar_is_named_by_its_key_and_the_rest_travels(known: KnownGrammars) -> None:
    known.add(b"key")

    assert known.shortened(BIG) == Constraint(b"key", b"", prefix=(1, 2), opening="{")


def test_a_forgotten_grammar_travels_whole_again(known: KnownGrammars) -> None:
    known.add(b"key")
    known.discard(b"key")

    assert known.shortened(BIG) is BIG


def test_no_more_are_remembered_than_the_engine_keeps(known: KnownGrammars) -> None:
    known.add(b"key")
    known.add(b"other")
    known.shortened(BIG)
    for number in range(MAX_KNOWN - 1):
        known.add(b"%d" % number)

    assert known.shortened(BIG) is not BIG
    other = Constraint(b"other", b"megabytes")
    assert known.shortened(other) is other
