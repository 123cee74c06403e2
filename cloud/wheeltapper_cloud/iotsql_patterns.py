"""
Regular expressions of AWS IoT SQL, in the syntax of RE2: the time they take grows with the text and no faster.

A pattern stands in the rule, what it is laid upon comes from a device. With a backtracking engine a text of some dozen
characters can hold up the thread that judges for hours.
"""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from wheeltapper_cloud.iotsql_values import MOST_GROWTH, TooMuchWorkError

_MEMORY: Final = 1 << 20  # of one pattern's automaton, in bytes; a larger pattern is refused
_LONGEST: Final = 4096
_MOST_STEPS: Final = 1 << 23  # size of a pattern times length of a text: 50 ms where the automaton outgrows its memory
_MOST_CPU_S: Final = 0.25  # of all the searches of one replacement

_REFERENCE = re.compile(r"\\(.)|\$([0-9]+)|\$\{([A-Za-z][A-Za-z0-9]*)\}|[\\$]", re.DOTALL)
# What Java reads otherwise, and what would hide it: quotes, escaped signs, and a bracket that a class begins with.
_PIECE = re.compile(r"\\Q.*?(?:\\E|$)|\\[1-9][0-7]+|\\.|\(\?[a-zA-Z]*U|\[\^?\]?|\]|&&", re.DOTALL)
_UNLIKE_JAVA = re.compile(r"\\(?:[Cv]|[1-9][0-7]+)|\(\?[a-zA-Z]*U")
_UNLIKE_JAVA_WITHIN = re.compile(r"\[|&&|\\(?:[Cv]|[1-9][0-7]+)")


def check(pattern: str) -> None:
    """Raise ValueError where a pattern cannot be used."""
    _compiled(pattern, False)


def require() -> None:
    """Raise ModuleNotFoundError where RE2 is missing, so that a rule is refused and not each of its messages."""
    _compiled("", False)


def matches(text: str, pattern: str) -> bool:
    """
    Whether some part of a text matches.

    Raises:
        ValueError: the pattern cannot be used; so with the other functions of this module.
        TooMuchWorkError: pattern and text are too large for one another; so with the others, too.

    >>> matches("x" * 40, "(x+x+)+y")
    False
    """
    return _found(pattern, text) is not None


def first_match(text: str, pattern: str) -> str | None:
    """The first part of a text that matches."""
    found = _found(pattern, text)
    return None if found is None else found.group().decode()


def replaced(text: str, pattern: str, replacement: str) -> str:
    r"""
    A text with every match replaced; in the replacement ``$1`` and ``${name}`` are groups, ``\`` takes a sign as it is.

    >>> replaced("abcd", "b(.*)d", "$1"), replaced("baaac", "a*", r"\$")
    ('ac', '$b$$c$')
    """
    regexp, pieces = _replacer(pattern, replacement)
    out: list[str] = []
    end = grown = 0
    _afford(regexp, len(text))
    started = time.thread_time()
    for match in regexp.finditer(text):
        filled = "".join(piece if isinstance(piece, str) else match.group(piece) or "" for piece in pieces)
        out += (text[end : match.start()], filled)
        end = match.end()
        grown += len(filled)
        if grown - end > MOST_GROWTH or time.thread_time() - started > _MOST_CPU_S:
            raise TooMuchWorkError(f"replacing {pattern[:40]!r} in a text of {len(text)} characters takes too long")
    return "".join((*out, text[end:]))


@lru_cache(maxsize=128)
def _compiled(pattern: str, captures: bool) -> Any:
    """
    A pattern of RE2.

    Raises:
        ValueError: it is none, is too large, or means something else in Java, for which rules are written.
    """
    import re2  # the rules that use no pattern start without it

    if len(pattern) > _LONGEST:
        raise ValueError(f"a pattern of more than {_LONGEST} characters")
    if unlike := _unlike_java(pattern):
        raise ValueError(
            f"not a pattern that can be used: {unlike} is read otherwise than on AWS, as are (?U), \\v, \\C, \\12, && and "
            "brackets within brackets; write out what it stands for"
        )
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    options.never_capture = not captures
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"not a pattern that can be used: {reason}") from error


@lru_cache(maxsize=128)
def _replacer(pattern: str, replacement: str) -> tuple[Any, list[str | int]]:
    """A pattern, and the pieces of what stands in for a match."""
    regexp = _compiled(pattern, True)
    pieces = _pieces(replacement, regexp.groups, regexp.groupindex)
    if any(isinstance(piece, int) and piece for piece in pieces):
        return regexp, pieces
    return _compiled(pattern, False), pieces  # much quicker where no group is to be told


def _found(pattern: str, text: str) -> Any:
    regexp = _compiled(pattern, False)
    encoded = text.encode()  # what is searched anyway, and told by places in bytes in half the time
    _afford(regexp, len(encoded))
    return regexp.search(encoded)


def _afford(regexp: Any, length: int) -> None:
    if regexp.programsize * length > _MOST_STEPS:
        raise TooMuchWorkError(f"the pattern {regexp.pattern[:40]!r} is too large for a text of {length} characters")


def _unlike_java(pattern: str) -> str:
    r"""
    The first piece of a pattern that RE2 would read otherwise than Java; empty where there is none.

    >>> _unlike_java("[a[b]]"), _unlike_java(r"(a)\12"), _unlike_java(r"\(?US[(?U]")
    ('[', '\\12', '')
    """
    within = False
    for found in _PIECE.finditer(pattern):
        piece = found[0]
        if (_UNLIKE_JAVA_WITHIN if within else _UNLIKE_JAVA).match(piece):
            return piece
        if piece[0] in "[]":
            within = piece[0] == "["
    return ""


def _pieces(replacement: str, groups: int, names: Mapping[str, int]) -> list[str | int]:
    """
    A replacement in Java's notation: texts, and groups by their number.

    Raises:
        ValueError: it ends too early, or a group is not there.
    """
    pieces: list[str | int] = []
    place = 0
    for found in _REFERENCE.finditer(replacement):
        pieces.append(replacement[place : found.start()])
        place = found.end()
        sign, digits, name = found.groups()
        if sign is not None:
            pieces.append(sign)
        elif digits is not None:
            taken = _group_digits(digits, groups)
            pieces += (int(digits[:taken]), digits[taken:])
        elif name in names:
            pieces.append(names[name])
        else:
            raise ValueError(f"{replacement[:40]!r}: {found[0]!r} is no group")
    return [*pieces, replacement[place:]]


def _group_digits(digits: str, groups: int) -> int:
    """How many of the digits are a group's number: as many as leave a group that is there, one at least."""
    if int(digits[0]) > groups:
        raise ValueError(f"there is no group {digits[0]}")
    taken = 1
    while taken < len(digits) and int(digits[: taken + 1]) <= groups:
        taken += 1
    return taken
