"""The words of AWS IoT SQL: text to tokens, and a reader that takes them one by one."""

import re
from collections.abc import Iterator

from wheeltapper.errors import SettingsError

_MAX_TEXT = 256 * 1024
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<string>'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<comment>--|/\*)|(?P<name>[^\W\d]\w*|`[^`]+`)|(?P<variable>@\w+)|(?P<sign><>|!=|<=|>=|[-+*/%=<>().,\[\]{}:@#]))",
    re.DOTALL,
)
# Words of other SQLs, and what to write instead.
_REFUSED_WORDS = {
    "not": " here; write it before the whole comparison",
    "is": "; use isNull() or isUndefined()",
    "like": "; use regexp_matches()",
    "between": "; use >= and <=",
    **dict.fromkeys(("distinct", "unnest", "group", "order", "join", "limit", "having", "union"), ""),
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


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
            if kind == "comment":
                raise self._error(f"comments are not supported, nor on AWS: {text[place:].strip()[:20]!r}")
            yield kind, found.group(kind)
            place = found.end()
        yield "end", ""

    def _error(self, what: str) -> SettingsError:
        return SettingsError(f"topic rule {' '.join(self._text.split())[:80]!r}: {what}")

    def _peek_word(self) -> str:
        kind, text = self._tokens[self._place]
        return text.lower() if kind == "name" else ""

    def _peek_sign(self) -> str:
        kind, text = self._tokens[self._place]
        return text if kind == "sign" else ""

    def _take_word(self, word: str) -> bool:
        if self._peek_word() == word:
            self._place += 1
            return True
        return False

    def _take_sign(self, *signs: str) -> str:
        sign = self._peek_sign()
        if sign not in signs:
            return ""
        self._place += 1
        return sign

    def _take_name(self, otherwise: str) -> str:
        kind, text = self._tokens[self._place]
        if kind not in ("name", "string"):
            raise self._error(otherwise)
        self._place += 1
        return unquote(text)

    def _expect_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._unexpected(f"{sign!r}")

    def _expect_word(self, word: str) -> None:
        if not self._take_word(word):
            raise self._unexpected(word.upper())

    def _finish(self) -> None:
        if self._tokens[self._place][0] != "end":
            raise self._unexpected("the end")

    def _unexpected(self, wanted: str) -> SettingsError:
        """What stands here, where something else is wanted."""
        for _kind, text in self._tokens[max(self._place - 1, 0) : self._place + 1]:
            if text.lower() in _REFUSED_WORDS:
                return self._error(f"{text.upper()} is not supported{_REFUSED_WORDS[text.lower()]}")
        return self._error(f"{wanted} expected before {self._tokens[self._place][1]!r}")


def unquote(text: str) -> str:
    r"""
    The text of a string or a name.

    A backslash before a letter that it does not change stays, so that ``'\d'`` and ``'\\d'`` are the same pattern.

    >>> unquote(r"'it''s \d'"), unquote("`a b`")
    ("it's \\d", 'a b')
    """
    if text[0] not in "'\"":
        return text.strip("`")
    inner = text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), inner, flags=re.DOTALL)
