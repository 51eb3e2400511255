"""Where a call's arguments end, and their text as JSON whatever notation they are said in."""

from falsework.grammars import json_values

_WORDS = {"True": "true", "False": "false", "None": "null"}


class ArgumentsReader:
    """Reads the arguments of one call as they arrive; `done` once they are complete.

    JSON goes through untouched. Keyword arguments (`a=1, b="x"`) become an object's text, up to the
    parenthesis that ends the call, which isn't taken.
    """

    def __init__(self, notation: json_values.Notation) -> None:
        self._bare = notation.bare_arguments
        self._depth = 1 if self._bare else 0
        self._in_string = False
        self._escaped = False
        self._word = ""
        self._opened = False
        self.done = False

    def feed(self, text: str) -> tuple[str, str]:
        """Return (JSON text so far certain, text behind the arguments)."""
        said: list[str] = []
        if self._bare and not self._opened:
            self._opened = True
            said.append("{")
        for position, character in enumerate(text):
            if self.done:
                return "".join(said), text[position:]
            if self._bare and not self._in_string and self._ends(character):
                said.append(self._flush() + "}")
                self.done = True
                return "".join(said), text[position:]
            said.append(self._take(character))
        return "".join(said), ""

    def _ends(self, character: str) -> bool:
        return self._depth == 1 and character == ")"

    def _take(self, character: str) -> str:
        if self._in_string:
            self._in_string = self._escaped or character != '"'
            self._escaped = character == "\\" and not self._escaped
            return character
        if character == '"':
            self._in_string = True
        elif character in "{[(":
            self._depth += 1
        elif character in "}])":
            self._depth -= 1
            self.done = self._depth == 0
        return self._translated(character) if self._bare else character

    def _translated(self, character: str) -> str:
        """Hold back words until they end: names of arguments, True, False, None."""
        if character.isidentifier() or (self._word and character.isalnum()):
            self._word += character
            return ""
        if character == "=" and self._depth == 1:
            name, self._word = self._word, ""
            return f"{json_values.dumps(name)}: "
        return self._flush() + character

    def _flush(self) -> str:
        word, self._word = self._word, ""
        return _WORDS.get(word, word)
