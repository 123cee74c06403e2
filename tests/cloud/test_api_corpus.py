"""One long conversation with the HTTP API, each answer as the specification's rule demands it."""

import json
from pathlib import Path
from typing import Any

from tests.companion import serving

CORPUS = Path(__file__).with_name("corpus") / "api.jsonl"


def contains(wanted: Any, found: Any) -> bool:
    """Whether what is wanted is in what was found, member by member."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and contains(wanted[name], found[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(contains, wanted, found))
    return type(wanted) is type(found) and bool(wanted == found)


def fault(wanted: dict[str, Any], status: int, answer: Any, headers: Any) -> str:
    if status != wanted["status"] or headers.get("x-amzn-errortype", "") != wanted.get("errorType", ""):
        return f"{status} {headers.get('x-amzn-errortype', '')}"
    if "body" in wanted and answer != wanted["body"]:
        return "another body"
    if any(name in answer for name in wanted.get("bodyLacks", ())):
        return "a member too many"
    return "" if contains(wanted.get("bodyHas", answer), answer) else "members are missing"


def test_every_exchange_is_answered_as_its_rule_says(tmp_path: Path) -> None:
    faults = []
    with serving(tmp_path) as cloud:
        for case in map(json.loads, CORPUS.read_text(encoding="utf-8").splitlines()):
            request = case["request"]
            status, answer, headers = cloud.call(request["method"], request["uri"], request.get("body"))
            if what := fault(case["expect"], status, answer, headers):
                faults.append(f"{case['id']} {case['title']} ({case['rule']}): {what}: {answer}")

    assert not faults, "\n".join(faults)
