"""The compiled engine against the interpreter, on models that nobody would write."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detector.random_models import Maker
from wheeltapper.detector.runtime import Shard
from wheeltapper.detector.settings import DEFAULTS, STRICT, EngineSettings


def play(seed: int, length: int, choice: EngineSettings) -> None:
    """Run one random model both ways and compare everything after every step."""
    maker = Maker(random.Random(seed))
    model = maker.model()
    compiled, interpreted = Shard(choice), Shard(choice, interpreted=True)
    compiled.load(model)
    interpreted.load(model)
    now = 1000.5
    for number in range(length):
        now += maker.delay()
        message = maker.message(number)
        one = msgspec.json.encode(list(compiled.put(message, now)))
        two = msgspec.json.encode(list(interpreted.put(message, now)))

        assert one == two
        assert compiled.snapshot() == interpreted.snapshot()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_compiled_models_do_what_the_interpreter_does(seed: int) -> None:
    play(seed, 25, DEFAULTS)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["half-up", "truncate", "floor"]))
def test_compiled_models_do_what_the_interpreter_does_under_strict_settings(seed: int, division: str) -> None:
    play(
        seed,
        15,
        msgspec.structs.replace(STRICT, integer_division=division, whole_second_timers=False, minimum_timer_s=3),
    )
