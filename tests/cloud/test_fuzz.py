"""Whatever is sent, the companion answers, never with 500, and goes on serving."""

from tests.companion import serving
from tests.fuzzing import throw
from wheeltapper_cloud.settings import CloudSettings, LimitSettings


def test_two_thousand_odd_requests_leave_the_companion_well(tmp_path):
    with serving(tmp_path, CloudSettings(limits=LimitSettings(detector_models=0))) as cloud:
        statuses = throw(cloud.port, 2_000, seed=7)
        alive = cloud.call("GET", "/health/ready")[0]
        internal = cloud.companion.judge.statistics()

    assert alive == 200
    assert {200, 400, 404} <= set(statuses)
    assert internal.writable
