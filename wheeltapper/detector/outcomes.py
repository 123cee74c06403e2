"""
What an expression may give, from what is known of its references: the abstract counterpart of evaluation.

``cases`` splits a condition into true, false and undefined, and for each says what must then hold of the references in
it. All of it over-estimates: an outcome that is not listed cannot happen.
"""

import operator as python
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from wheeltapper.detector import expression as ex
from wheeltapper.detector import intervals as iv
from wheeltapper.detector.intervals import Possible

Outcome = Literal["true", "false", "undefined"]

# What is known, by reference or timer name; inputs that are missing may be anything, variables that are missing are unset.
Fact = ex.Reference | tuple[str, str]
Facts = Mapping[Fact, Possible]
Case = tuple[Outcome, Facts]

_MAX_CASES = 16


class Trigger(NamedTuple):
    """Why a pass runs: ("Message", input name) or ("Timer", timer name)."""

    kind: Literal["Message", "Timer"]
    name: str


def timeout_of(timer: str) -> Fact:
    """The fact that says whether ``timeout`` of a timer is true."""
    return ("timeout", timer)


def checked_of(timer: str) -> Fact:
    """The fact that says whether some condition has asked for the timer's timeout; false where it is missing."""
    return ("checked", timer)


def known(reference: ex.Reference, facts: Facts) -> Possible:
    """What a reference may be."""
    found = facts.get(reference)
    if found is not None:
        return found
    if reference.root == "variable":
        return iv.UNDEFINED
    return iv.ANYTHING


def value(tree: ex.Expression, facts: Facts, trigger: Trigger | None) -> Possible:
    """Everything the expression may give."""
    match tree:
        case ex.Literal(constant):
            return iv.of(constant)
        case ex.Reference():
            return known(tree, facts)
        case ex.Template(parts):
            return _template(parts, facts, trigger)
        case ex.Unary("-", operand):
            return iv.negate(value(operand, facts, trigger))
        case ex.Unary("~", operand):
            return _integer_operation((operand,), facts, trigger)
        case ex.Binary("+" | "-" | "*" | "/" as operator, left, right):
            return _ARITHMETIC[operator](value(left, facts, trigger), value(right, facts, trigger))
        case ex.Binary("&" | "|" | "^", left, right):
            return _integer_operation((left, right), facts, trigger)
        case ex.Call("bitor" | "bitand" | "bitxor" | "bitnot", arguments):
            return _integer_operation(arguments, facts, trigger)
        case ex.Call("convert", (kind, argument)):
            return _convert(kind, value(argument, facts, trigger))
    found = {outcome for outcome, _ in cases(tree, facts, trigger)}
    return Possible(undefined="undefined" in found, true="true" in found, false="false" in found)


_ARITHMETIC = {"+": iv.add, "-": iv.subtract, "*": iv.multiply, "/": iv.divide}


def cases(tree: ex.Expression, facts: Facts, trigger: Trigger | None) -> list[Case]:
    """The outcomes of a condition; whatever is neither true nor false is ``undefined``."""
    match tree:
        case ex.Unary("!", operand):
            swap: dict[Outcome, Outcome] = {"true": "false", "false": "true", "undefined": "undefined"}
            return [(swap[outcome], then) for outcome, then in cases(operand, facts, trigger)]
        case ex.Binary("&&", left, right):
            return _limited(_and(left, right, facts, trigger))
        case ex.Binary("||", left, right):
            return _limited(_or(left, right, facts, trigger))
        case ex.Binary("==" | "!=" as operator, left, right):
            return _limited(_equality(operator, left, right, facts, trigger))
        case ex.Binary("<" | "<=" | ">" | ">=" as operator, left, right):
            return _limited(_order(operator, left, right, facts, trigger))
        case ex.Call(function, arguments) if function not in ("convert", "bitor", "bitand", "bitxor", "bitnot"):
            return _call(function, arguments, facts, trigger)
    return _split(tree, value(tree, facts, trigger), facts)


def _and(left: ex.Expression, right: ex.Expression, facts: Facts, trigger: Trigger | None) -> Iterable[Case]:
    for first, then in cases(left, facts, trigger):
        if first == "false":
            yield "false", then
            continue
        for second, after in cases(right, then, trigger):
            both: Outcome = "true" if (first, second) == ("true", "true") else "undefined"
            yield ("false" if second == "false" else both), after


def _or(left: ex.Expression, right: ex.Expression, facts: Facts, trigger: Trigger | None) -> Iterable[Case]:
    for first, then in cases(left, facts, trigger):
        if first == "true":
            yield "true", then
            continue
        for second, after in cases(right, then, trigger):
            yield ("true" if second == "true" else "false"), after


def _split(tree: ex.Expression, found: Possible, facts: Facts) -> list[Case]:
    out: list[Case] = []
    if found.true:
        out.append(("true", _with(facts, tree, iv.TRUE)))
    if found.false:
        out.append(("false", _with(facts, tree, iv.FALSE)))
    if found.not_boolean:
        out.append(("undefined", _with(facts, tree, msgspec.structs.replace(found, true=False, false=False))))
    return out


def _with(facts: Facts, tree: ex.Expression, found: Possible) -> Facts:
    """The facts with a reference narrowed; other expressions teach nothing."""
    if isinstance(tree, ex.Reference):
        if facts.get(tree) == found:
            return facts
        return {**facts, tree: found}
    return facts


def _order(
    operator: str, left: ex.Expression, right: ex.Expression, facts: Facts, trigger: Trigger | None
) -> Iterable[Case]:
    sign: iv.Operator = operator  # type: ignore[assignment]
    a, b = value(left, facts, trigger), value(right, facts, trigger)
    sides: tuple[tuple[Outcome, iv.Operator], ...] = (("true", sign), ("false", iv.opposite(sign)))
    for outcome, holds in sides:
        a_numbers = a.number and b.number and iv.numbers_where(a.number, holds, b.number)
        b_numbers = a.number and b.number and iv.numbers_where(b.number, iv.mirrored(holds), a.number)
        texts = _texts_where(a.texts, holds, b.texts)
        if (a_numbers is None or b_numbers is None) and not texts:
            continue
        narrowed_a = Possible(number=a_numbers, texts=a.texts if texts else None)
        narrowed_b = Possible(number=b_numbers, texts=b.texts if texts else None)
        yield outcome, _with(_with(facts, left, narrowed_a), right, narrowed_b)
    if not (_only(a, "number") and _only(b, "number")) and not (_only(a, "texts") and _only(b, "texts")):
        yield "undefined", _with(_with(facts, left, _unfit(a, b)), right, _unfit(b, a))


def _only(found: Possible, kind: Literal["number", "texts"]) -> bool:
    """Whether nothing but numbers, or nothing but texts, may occur."""
    rest = (
        msgspec.structs.replace(found, number=None) if kind == "number" else msgspec.structs.replace(found, texts=None)
    )
    return rest.nothing and not found.nothing


def _unfit(found: Possible, other: Possible) -> Possible:
    """The part of an operand for which a comparison with ``other`` may be undefined."""
    if _only(other, "number"):
        return msgspec.structs.replace(found, number=None)
    if _only(other, "texts"):
        return msgspec.structs.replace(found, texts=None)
    return found


_COMPARE = {"<": python.lt, "<=": python.le, ">": python.gt, ">=": python.ge}


def _texts_where(left: iv.Texts, operator: iv.Operator, right: iv.Texts) -> bool:
    if left is None or right is None:
        return False
    if isinstance(left, str) or isinstance(right, str):
        return True
    compare: Callable[[str, str], bool] = _COMPARE[operator]
    return any(compare(a, b) for a in left for b in right)


def _equality(
    operator: str, left: ex.Expression, right: ex.Expression, facts: Facts, trigger: Trigger | None
) -> Iterable[Case]:
    equal: Outcome = "true" if operator == "==" else "false"
    unequal: Outcome = "false" if operator == "==" else "true"
    a, b = value(left, facts, trigger), value(right, facts, trigger)
    if left == right and isinstance(left, ex.Reference):
        yield from _self_equality(left, a, equal, unequal, facts)
        return
    same = Possible(
        true=a.true and b.true,
        false=a.false and b.false,
        number=iv.overlap(a.number, b.number) if a.number and b.number else None,
        texts=iv.texts_overlap(a.texts, b.texts),
    )
    if not same.nothing:
        yield equal, _with(_with(facts, left, same), right, same)
    if _may_differ(a, b):
        yield unequal, _with(_with(facts, left, _differing(a, b)), right, _differing(b, a))
    if _incompatible(a, b):
        yield "undefined", facts


def _self_equality(
    reference: ex.Reference, found: Possible, equal: Outcome, unequal: Outcome, facts: Facts
) -> Iterable[Case]:
    if found.is_value:
        yield equal, _with(facts, reference, iv.without_undefined(found))
    if found.undefined or found.null or found.structure:
        nothing = Possible(undefined=found.undefined, null=found.null, structure=found.structure)
        yield unequal, _with(facts, reference, nothing)
    if found.structure:
        yield "undefined", _with(facts, reference, Possible(structure=True))


def _may_differ(a: Possible, b: Possible) -> bool:
    """Whether two operands may be unequal without being incompatible; undefined and null equal nothing."""
    if a.undefined or b.undefined or a.null or b.null or a.structure or b.structure:
        return True
    if (a.true and b.false) or (a.false and b.true):
        return True
    if a.number and b.number and not (a.number == b.number and a.number.low == a.number.high):
        return True
    if a.texts is None or b.texts is None:
        return False
    return not (isinstance(a.texts, frozenset) and a.texts == b.texts and len(a.texts) == 1)


def _differing(found: Possible, other: Possible) -> Possible:
    """The part of an operand that may be unequal to ``other``: a single value is cut out where that is possible."""
    single = other.constant
    if isinstance(single, bool):
        return msgspec.structs.replace(found, true=found.true and not single, false=found.false and single)
    if isinstance(single, str):
        kept = frozenset(found.texts - {single}) if isinstance(found.texts, frozenset) else found.texts
        return msgspec.structs.replace(found, texts=kept or None)
    if single is not None and found.number is not None:
        number = found.number
        low_open = number.low_open or number.low == single
        high_open = number.high_open or number.high == single
        if number.low == number.high and low_open:
            return msgspec.structs.replace(found, number=None)
        return msgspec.structs.replace(found, number=iv.Interval(number.low, number.high, low_open, high_open))
    return found


def _incompatible(a: Possible, b: Possible) -> bool:
    """Whether two operands may be of kinds that no comparison accepts."""

    def kinds(found: Possible) -> set[str]:
        out = {"boolean"} if found.true or found.false else set()
        out |= {"number"} if found.number else set()
        out |= {"text"} if found.texts else set()
        return out | ({"structure"} if found.structure else set()) | ({"null"} if found.null else set())

    first, second = kinds(a), kinds(b)
    if "structure" in first | second or (("null" in first | second) and first and second):
        return True
    return any(one != other for one in first for other in second)


def _call(function: str, arguments: tuple[ex.Expression, ...], facts: Facts, trigger: Trigger | None) -> list[Case]:
    either: list[Case] = [("true", facts), ("false", facts)]
    argument = arguments[0]
    if function in ("isNull", "isUndefined"):
        return _presence(function, argument, value(argument, facts, trigger), facts)
    if function == "timeout":
        if not (isinstance(argument, ex.Literal) and isinstance(argument.value, str)):
            return [*either, ("undefined", facts)]
        fact = timeout_of(argument.value)
        facts_after = {**facts, checked_of(argument.value): iv.TRUE}
        found = facts.get(fact, iv.ANY_BOOLEAN)
        out: list[Case] = [("true", {**facts_after, fact: iv.TRUE})] if found.true else []
        return out + ([("false", {**facts_after, fact: iv.FALSE})] if found.false else [])
    if function in ("triggerType", "currentInput"):
        name = value(argument, facts, trigger).constant
        if trigger is None or not isinstance(name, str):
            return [*either, ("undefined", facts)] if not isinstance(name, str) else either
        holds = (
            name.lower() == trigger.kind.lower() if function == "triggerType" else trigger == Trigger("Message", name)
        )
        return [("true" if holds else "false", facts)]
    return _text_test(function, arguments, facts, trigger)


def _presence(function: str, argument: ex.Expression, found: Possible, facts: Facts) -> list[Case]:
    wanted = "null" if function == "isNull" else "undefined"
    out: list[Case] = []
    if getattr(found, wanted) or found.structure:
        held = Possible(null=wanted == "null", undefined=wanted == "undefined", structure=found.structure)
        out.append(("true", _with(facts, argument, held)))
    rest = msgspec.structs.replace(found, **{wanted: False})
    if not rest.nothing:
        out.append(("false", _with(facts, argument, rest)))
    return out


def _text_test(
    function: str, arguments: tuple[ex.Expression, ...], facts: Facts, trigger: Trigger | None
) -> list[Case]:
    a, b = (value(each, facts, trigger) for each in arguments)
    out: list[Case] = []
    if a.texts is not None and b.texts is not None:
        test = {"startsWith": str.startswith, "endsWith": str.endswith, "contains": str.__contains__}[function]
        if isinstance(a.texts, frozenset) and isinstance(b.texts, frozenset):
            found = {bool(test(one, other)) for one in a.texts for other in b.texts}
        else:
            found = {True, False}
        out = [("true" if each else "false", facts) for each in sorted(found)]
    if not (_only(a, "texts") and _only(b, "texts")):
        out.append(("undefined", facts))
    return out


def _template(parts: Iterable["str | ex.Expression"], facts: Facts, trigger: Trigger | None) -> Possible:
    undefined = False
    texts: list[str] | None = []
    for part in parts:
        if isinstance(part, str):
            texts = None if texts is None else [*texts, part]
            continue
        found = value(part, facts, trigger)
        undefined = undefined or found.undefined or found.null or found.structure
        if not found.is_value:
            return iv.UNDEFINED
        single = found.constant
        texts = [*texts, single] if isinstance(single, str) and texts is not None else None
    made: iv.Texts = "any" if texts is None else frozenset(("".join(texts),))
    return Possible(undefined=undefined, texts=made)


def _integer_operation(operands: Iterable[ex.Expression], facts: Facts, trigger: Trigger | None) -> Possible:
    if any(value(each, facts, trigger).number is None for each in operands):
        return iv.UNDEFINED
    return Possible(undefined=True, number=iv.EVERY_NUMBER)


def _convert(kind: ex.Expression, found: Possible) -> Possible:
    wanted = kind.value if isinstance(kind, ex.Literal) else None
    text = found.texts is not None
    if wanted == "String":
        texts = set(found.texts) if isinstance(found.texts, frozenset) else set()
        texts |= {"true"} if found.true else set()
        texts |= {"false"} if found.false else set()
        is_any = found.texts == "any" or found.number is not None
        made: iv.Texts = "any" if is_any else frozenset(texts) or None
        return Possible(undefined=found.undefined or found.null or found.structure, texts=made)
    if wanted == "Boolean":
        return Possible(
            undefined=found.undefined or found.null or found.structure or text or found.number is not None,
            true=found.true or text,
            false=found.false or text,
        )
    if wanted == "Decimal":
        number = iv.EVERY_NUMBER if text else found.number
        others = found.undefined or found.null or found.structure or found.true or found.false
        return Possible(undefined=others or text, number=number)
    return iv.ANYTHING


def _limited(found: Iterable[Case]) -> list[Case]:
    """The cases, each once; too many are joined by outcome."""
    listed: list[Case] = []
    for case in found:
        if case not in listed:
            listed.append(case)
    if len(listed) <= _MAX_CASES:
        return listed
    joined: dict[Outcome, Facts] = {}
    for outcome, then in listed:
        joined[outcome] = join_facts(joined[outcome], then) if outcome in joined else then
    return list(joined.items())


def join_facts(left: Facts, right: Facts) -> Facts:
    """What holds in either."""
    out: dict[Fact, Possible] = dict(left)
    for fact, found in left.items():
        other = right.get(fact)
        if other is not found:
            out[fact] = iv.join(found, _default(fact, right) if other is None else other)
    for fact in right.keys() - left.keys():
        out[fact] = iv.join(_default(fact, left), right[fact])
    return out


def _default(fact: Fact, facts: Facts) -> Possible:
    if isinstance(fact, ex.Reference):
        return known(fact, facts)
    return facts.get(fact, iv.FALSE if fact[0] == "checked" else iv.ANY_BOOLEAN)
