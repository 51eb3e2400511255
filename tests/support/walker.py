"""Random texts of an automaton: what a model that wants to say anything would say."""

import random
from collections import deque

from falsework.grammars.dfa import DFA, START


class Walker:
    """Says random texts of an automaton's language, each of them whole."""

    def __init__(self, automaton: DFA) -> None:
        self._automaton = automaton
        self._bytes: dict[int, list[int]] = {}
        for byte, number in enumerate(automaton.classes.tolist()):
            self._bytes.setdefault(number, []).append(byte)

    def say(self, seed: int, steps: int = 60) -> str:
        """Wander for some steps, then go the shortest way to an end."""
        draw = random.Random(seed)
        state, said = START, bytearray()
        while len(said) <= steps:
            ways = list(self._automaton.transitions(state))
            if self._automaton.is_accepting(state) and (not ways or draw.random() < 0.1):
                return said.decode()
            chosen, state = draw.choice(ways)
            said.append(draw.choice(self._bytes[chosen]))
        return (said + bytes(draw.choice(self._bytes[c]) for c in self._home(state))).decode()

    def _home(self, state: int) -> list[int]:
        """Return the classes of the shortest way to an end."""
        queue, came = deque([state]), {state: (state, -1)}
        while not self._automaton.is_accepting(queue[0]):
            here = queue.popleft()
            for number, following in self._automaton.transitions(here):
                if following not in came:
                    came[following] = (here, number)
                    queue.append(following)
        here, way = queue[0], []
        while here != state:
            here, number = came[here]
            way.append(number)
        return way[::-1]
