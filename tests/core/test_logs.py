import io
import logging
from datetime import UTC, datetime, timedelta

import pytest

from tests.companion import logging_kept
from wheeltapper import logs


@pytest.fixture
def written():
    stream = io.StringIO()
    with logging_kept():
        logs.set_up(stream=stream)
        yield stream


def test_a_name_from_a_device_cannot_begin_a_line_of_its_own(written):
    logging.getLogger("test").warning("message dropped: %s", "a/b\n2026-01-01 ERROR all is lost\x1b[2J")

    lines = written.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("message dropped: a/b\\n2026-01-01 ERROR all is lost\\x1b[2J")


def test_a_line_begins_with_a_time_that_names_its_zone(written):
    before = datetime.now(UTC)
    logging.getLogger("test").warning("message dropped")

    time, level, *_ = written.getvalue().split()
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(time) <= datetime.now(UTC)
    assert level == "WARNING"


def test_a_traceback_keeps_its_lines(written):
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("test").exception("failed: größer")

    assert written.getvalue().splitlines()[0].endswith("failed: größer")
    assert "Traceback" in written.getvalue()
