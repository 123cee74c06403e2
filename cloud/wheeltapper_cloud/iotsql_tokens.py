"""The words of AWS IoT SQL: text to tokens, and a reader that takes them one by one."""

import re
from collections.abc import Iterator

from wheeltapper.errors import SettingsError

_MAX_TEXT = 256 * 1024
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<string>'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)|(?P<sign><>|!=|<=|>=|[-+*/%=<>().,\[\]{}:]))",
    re.DOTALL,
)


class TokenReader:
    """A text's tokens and the place in them."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_TEXT:
            raise SettingsError(f"topic rule: longer than {_MAX_TEXT} characters")
        self._text = text
        self._tokens = list(self._scan())
        self._place = 0

    def _scan(self) -> Iterator[tuple[str, str]]:
        place = 0
        text = self._text.rstrip().rstrip(";")
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                if not text[place:].strip():
                    break
                raise self._error(f"cannot read {text[place:].strip()[:20]!r}")
            kind = str(found.lastgroup)
            yield kind, found.group(kind)
            place = found.end()
        yield "end", ""

    def _error(self, what: str) -> SettingsError:
        return SettingsError(f"topic rule {' '.join(self._text.split())[:80]!r}: {what}")

    def _peek_word(self) -> str:
        kind, text = self._tokens[self._place]
        return text.lower() if kind == "name" else ""

    def _take_word(self, word: str) -> bool:
        if self._peek_word() == word:
            self._place += 1
            return True
        return False

    def _take_sign(self, *signs: str) -> str:
        kind, text = self._tokens[self._place]
        if kind == "sign" and text in signs:
            self._place += 1
            return str(text)
        return ""

    def _expect_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._error(f"{sign!r} expected before {self._tokens[self._place][1]!r}")

    def _expect_word(self, word: str) -> None:
        if not self._take_word(word):
            raise self._error(f"{word.upper()} expected before {self._tokens[self._place][1]!r}")


def unquote(text: str) -> str:
    if text[0] == "'":
        return re.sub(r"\\(.)", r"\1", text[1:-1].replace("''", "'"), flags=re.DOTALL)
    if text[0] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text.strip("`")
