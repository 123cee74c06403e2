"""
Analysis of data types: what each reference seems to be, and where operands do not go together.

Types are inferred from literals, assignments and the operators a reference stands beside; a reference that nothing is
known of is compatible with everything, so that only provable conflicts are errors.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from wheeltapper.detector import expression as ex
from wheeltapper.detector.analysis_findings import Finding
from wheeltapper.detector.analysis_survey import Rule, Step, Survey

Type = Literal["Integer", "Decimal", "String", "Boolean"]
Types = frozenset[Type]
Known = Mapping[ex.Reference, Types]

INTEGER: Types = frozenset(("Integer",))
DECIMAL: Types = frozenset(("Decimal",))
NUMBERS: Types = INTEGER | DECIMAL
TEXT: Types = frozenset(("String",))
BOOLEAN: Types = frozenset(("Boolean",))
UNKNOWN: Types = frozenset()
_ORDER: tuple[Type, ...] = ("Integer", "Decimal", "String", "Boolean")

_LOGIC = ("&&", "||")
_COMPARISON = ("==", "!=", "<", "<=", ">", ">=")
_BITS = ("&", "|", "^")
_UNARY: dict[str, Types] = {"!": BOOLEAN, "~": INTEGER, "-": NUMBERS}
_ARGUMENTS: dict[str, Types] = {
    **dict.fromkeys(("startsWith", "endsWith", "contains", "timeout", "triggerType", "currentInput"), TEXT),
    **dict.fromkeys(("bitor", "bitand", "bitxor", "bitnot"), INTEGER),
}
_SITEWISE: dict[str, Types] = {
    "propertyValue.value.stringValue": TEXT,
    "propertyValue.value.integerValue": INTEGER,
    "propertyValue.value.doubleValue": NUMBERS,
    "propertyValue.value.booleanValue": BOOLEAN,
}
_ROUNDS = 8


def findings(laid_out: Survey) -> Iterator[Finding]:
    """What can be said of types in a definition."""
    variables = _variables(laid_out)
    for reference, types in variables.items():
        if types and _compatible(types):
            yield Finding("data-type", "INFO", f"Inferred data types [{show(types)}] for {ex.show(reference)}")
    yield from _mixed_use(laid_out, variables)
    for rule in laid_out.rules:
        if rule.condition is not None:
            yield from _operators(rule.condition, rule.path, variables)
            types = type_of(rule.condition, variables)
            if (types and "Boolean" not in types) or _is_calculation(rule.condition):
                yield _error(f"Expression {rule.text} is not a valid condition expression.", rule.path)
        for step in rule.steps:
            yield from _step(rule, step, variables)


def show(types: Iterable[Type]) -> str:
    """Types as AWS lists them."""
    held = set(types)
    return ", ".join(each for each in _ORDER if each in held)


def _error(message: str, path: str) -> Finding:
    return Finding("data-type", "ERROR", message, (path,))


def _compatible(types: Types) -> bool:
    """Whether all belong to one kind; numbers are one kind."""
    return types <= NUMBERS or len(types) == 1


def _variables(laid_out: Survey) -> dict[ex.Reference, Types]:
    """Each variable's types: those of everything assigned to it."""
    assigned: dict[ex.Reference, list[ex.Expression]] = {}
    for rule in laid_out.rules:
        for step in rule.steps:
            tree = step.tree("value") if step.kind == "setVariable" else None
            if tree is not None:
                assigned.setdefault(ex.Reference("variable", step.name("variableName")), []).append(tree)
    known: dict[ex.Reference, Types] = dict.fromkeys(assigned, UNKNOWN)
    for _ in range(_ROUNDS):
        after = {
            reference: frozenset(each for tree in trees for each in type_of(tree, known))
            for reference, trees in assigned.items()
        }
        if after == known:
            break
        known = after
    return known


def type_of(tree: ex.Expression, known: Known) -> Types:
    """The types an expression may have; empty where nothing is known."""
    match tree:
        case ex.Literal(bool()):
            return BOOLEAN
        case ex.Literal(int()):
            return INTEGER
        case ex.Literal(float()):
            return DECIMAL
        case ex.Literal() | ex.Template():
            return TEXT
        case ex.Reference():
            return known.get(tree, UNKNOWN)
        case ex.Unary("!", _):
            return BOOLEAN
        case ex.Unary("~", _):
            return INTEGER
        case ex.Unary(_, operand):
            return type_of(operand, known) & NUMBERS
        case ex.Binary(operator, left, right):
            return _binary_type(operator, type_of(left, known), type_of(right, known))
        case ex.Call("convert", (ex.Literal(str(name)), _)):
            return {"String": TEXT, "Boolean": BOOLEAN, "Decimal": DECIMAL}.get(name, UNKNOWN)
        case ex.Call("bitor" | "bitand" | "bitxor" | "bitnot", _):
            return INTEGER
    return BOOLEAN


def _binary_type(operator: str, left: Types, right: Types) -> Types:
    if operator in _LOGIC or operator in _COMPARISON:
        return BOOLEAN
    if operator in _BITS:
        return INTEGER
    if operator == "+" and "String" in left | right:
        return TEXT
    if not left or not right:
        return DECIMAL if "Decimal" in left | right else UNKNOWN
    numbers = (left | right) & NUMBERS
    return DECIMAL if "Decimal" in numbers and numbers != left & right else numbers


def _is_calculation(tree: ex.Expression) -> bool:
    """Whether the value is a number or a text whatever the operands are."""
    if isinstance(tree, ex.Unary):
        return tree.operator != "!"
    return isinstance(tree, ex.Binary) and tree.operator not in (*_LOGIC, *_COMPARISON)


def _wanted(operator: str) -> Types:
    """What an operator takes, whatever stands on the other side; empty for comparisons."""
    if operator in _LOGIC:
        return BOOLEAN
    if operator in _BITS:
        return INTEGER
    if operator == "+":
        return NUMBERS | TEXT
    return NUMBERS if operator in ("-", "*", "/") else UNKNOWN


def _operators(tree: ex.Expression, path: str, known: Known) -> Iterator[Finding]:
    """Operators whose operands can never go together, and functions that are given what they cannot take."""
    for node in ex.walk(tree):
        if isinstance(node, ex.Unary | ex.Call):
            yield from _operands(node, tree, path, known)
        if not isinstance(node, ex.Binary):
            continue
        left, right = type_of(node.left, known), type_of(node.right, known)
        if not left or not right:
            continue
        if node.operator in _COMPARISON:
            order_of_booleans = node.operator not in ("==", "!=") and (left == BOOLEAN or right == BOOLEAN)
            if order_of_booleans or not _meet(left, right):
                yield _error(
                    f"The data types [{show(left | right)}] used with operands of the comparison operator "
                    f"[{node.operator}] are not compatible in the following expression: {ex.show(tree)}",
                    path,
                )
        elif not left & _wanted(node.operator) or not right & _wanted(node.operator) or not _meet(left, right):
            yield _error(
                f"The data types [{show(left | right)}] that you entered for the operator [{node.operator}] aren't "
                f"compatible for the following expression: '{ex.show(tree)}'",
                path,
            )


def _operands(node: ex.Unary | ex.Call, tree: ex.Expression, path: str, known: Known) -> Iterator[Finding]:
    if isinstance(node, ex.Unary):
        what, wanted = f"operator [{node.operator}]", _UNARY[node.operator]
    else:
        what, wanted = f"function [{node.function}]", _ARGUMENTS.get(node.function, UNKNOWN)
    held = [type_of(operand, known) for operand in ex.children(node)]
    if wanted and any(types and not types & wanted for types in held):
        yield _error(
            f"The data types [{show(frozenset().union(*held))}] that you entered for the {what} aren't "
            f"compatible for the following expression: '{ex.show(tree)}'",
            path,
        )


def _meet(left: Types, right: Types) -> bool:
    return bool(left & right) or bool(left & NUMBERS and right & NUMBERS)


def _uses(tree: ex.Expression, known: Known) -> Iterator[tuple[ex.Reference, Types]]:
    """References with the types that the operators around them ask for."""
    for node in ex.walk(tree):
        match node:
            case ex.Binary(operator, left, right):
                for side, other in ((left, right), (right, left)):
                    if not isinstance(side, ex.Reference):
                        continue
                    wanted = type_of(other, known) if operator in (*_COMPARISON, "+") else _wanted(operator)
                    if wanted and _compatible(wanted):
                        yield side, wanted
            case ex.Call("startsWith" | "endsWith" | "contains", arguments):
                for argument in arguments:
                    if isinstance(argument, ex.Reference):
                        yield argument, TEXT
            case ex.Unary("!", ex.Reference() as reference):
                yield reference, BOOLEAN


def _mixed_use(laid_out: Survey, variables: Known) -> Iterator[Finding]:
    """References that different places take for different kinds."""
    types: dict[ex.Reference, Types] = {reference: found for reference, found in variables.items() if found}
    places: dict[ex.Reference, list[str]] = {}
    for path, _, tree in laid_out.trees():
        for reference, wanted in _uses(tree, variables):
            held = types.get(reference, UNKNOWN)
            # Numbers are asked for as one kind; which of the two does not matter.
            news = UNKNOWN if held & NUMBERS and wanted <= NUMBERS else wanted
            types[reference] = held | news
            places.setdefault(reference, []).append(path)
    for reference, found in types.items():
        if not _compatible(found):
            yield Finding(
                "data-type",
                "WARNING",
                f"Incompatible data types [{show(found)}] used with {ex.show(reference)}. "
                "This may lead to a runtime error.",
                tuple(dict.fromkeys(places.get(reference, []))),
            )


def _step(rule: Rule, step: Step, known: Known) -> Iterator[Finding]:
    for text in step.texts:
        if text.tree is None:
            continue
        yield from _operators(text.tree, step.path, known)
        types = type_of(text.tree, known)
        if text.field == "durationExpression" and types and not types & NUMBERS:
            yield _error(
                f"Duration expression {text.text} for timer {step.name('timerName')} is not valid, "
                "it must return a number.",
                step.path,
            )
        wanted = _SITEWISE.get(text.field) if step.kind == "iotSiteWise" else None
        if wanted and types and not types & (wanted | TEXT):
            yield _error(
                f"The expression type in the IotSitewiseAction field {text.text} is defined as type {show(wanted)} and "
                f"inferred as type {show(types)}. The defined type and the inferred type must be the same.",
                step.path,
            )
    payload = step.body.get("payload")
    tree = step.tree("payload.contentExpression")
    if tree is not None and isinstance(payload, Mapping) and payload.get("type") == "JSON":
        yield from _json_payload(tree, step, known)


def _json_payload(tree: ex.Expression, step: Step, known: Known) -> Iterator[Finding]:
    types = type_of(tree, known)
    if types and "String" not in types and not isinstance(tree, ex.Literal):
        yield _error(
            f"The payload expression [{ex.show(tree)}] isn't valid. Specify an expression that would evaluate to a "
            "string at runtime because the payload type is JSON format.",
            step.path,
        )
    if not isinstance(tree, ex.Template):
        return
    for part in tree.parts:
        if isinstance(part, str) or type_of(part, known) != TEXT:
            continue
        # A bare text is valid JSON only if it is a number, true, false or null, which text seldom is.
        quoted = "".join(each if isinstance(each, str) else ("\x00" if each is part else "0") for each in tree.parts)
        if not _stands_in_quotes(quoted):
            yield _error(
                f"Your interpolated expression {{{ex.show(part)}}} must evaluate to either an integer or a Boolean "
                f"value at runtime. Otherwise, your payload expression {{{ex.show(tree)}}} won't be parseable at "
                "runtime as valid JSON.",
                step.path,
            )


def _stands_in_quotes(text: str) -> bool:
    """Whether the mark in a JSON text lies within a string, or the text is no JSON whatever stands there."""
    try:
        json.loads(text.replace("\x00", "0"))
    except ValueError:
        return True
    try:
        json.loads(text.replace("\x00", "x"))
    except ValueError:
        return False
    return True
