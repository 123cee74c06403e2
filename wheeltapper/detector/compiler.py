from typing import Any


def compile_plan(plan, settings) -> Any:
    raise NotImplementedError
