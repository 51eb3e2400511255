"""Random texts of an automaton: what a model that wants to say anything would say."""

import random

import numpy as np

from falsework.grammars.automata import DEAD, START, Automaton


class Walker:
    """Says random texts of an automaton's language, each of them whole."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._left = _distances(automaton)
        self._bytes: dict[int, list[int]] = {}
        for byte, number in enumerate(automaton.classes.tolist()):
            self._bytes.setdefault(number, []).append(byte)

    def say(self, seed: int, steps: int = 60) -> str:
        """Wander for some steps, then go the shortest way to an end."""
        draw = random.Random(seed)
        state, said = START, bytearray()
        while True:
            ways = [c for c, to in enumerate(self._automaton.table[state].tolist()) if to != DEAD]
            if self._automaton.accepting[state] and (not ways or draw.random() < 0.1):
                return said.decode()
            if len(said) > steps:
                nearest = min(self._left[self._automaton.table[state, c]] for c in ways)
                if self._automaton.accepting[state]:
                    return said.decode()
                ways = [c for c in ways if self._left[self._automaton.table[state, c]] == nearest]
            chosen = draw.choice(ways)
            said.append(draw.choice(self._bytes[chosen]))
            state = int(self._automaton.table[state, chosen])


def _distances(automaton: Automaton) -> np.ndarray:
    """Return for each state how many bytes the shortest way to an end has."""
    states = len(automaton.table)
    left = np.where(automaton.accepting, 0, states + 1)
    left[DEAD] = states + 1
    while True:
        nearer = np.minimum(left, left[automaton.table].min(axis=1) + 1)
        nearer[DEAD] = states + 1
        if (nearer == left).all():
            return left
        left = nearer
