import contextlib
import shutil
import threading

import pytest

from wheeltapper.errors import UnavailableError
from wheeltapper.journal import Journal, open_reader


def append(journal, count, *, now_ms=0, size=10):
    for number in range(count):
        with journal.transaction():
            journal.append(now_ms + number, "messages", b"x" * size)


def test_rows_come_back_in_the_order_written(tmp_path):
    journal = Journal(tmp_path / "j.db")
    append(journal, 5)
    journal.close()

    rows = list(Journal(tmp_path / "j.db").rows(2))

    assert [row.position for row in rows] == [3, 4, 5]


def test_a_failed_transaction_leaves_nothing_behind(tmp_path):
    journal = Journal(tmp_path / "j.db")
    append(journal, 1)

    with pytest.raises(RuntimeError), journal.transaction():
        journal.append(1, "messages", b"lost")
        raise RuntimeError

    append(journal, 1)
    assert [row.entries for row in journal.rows()] == [b"x" * 10] * 2
    assert journal.position == 2


def test_a_second_process_is_kept_out(tmp_path):
    journal = Journal(tmp_path / "j.db")

    with pytest.raises(UnavailableError, match="another process"):
        Journal(tmp_path / "j.db")

    journal.close()
    Journal(tmp_path / "j.db").close()


def test_positions_are_never_used_twice_even_after_pruning_everything(tmp_path):
    journal = Journal(tmp_path / "j.db")
    append(journal, 10)
    with journal.transaction():
        journal.prune(before_ms=1_000, keep_bytes=0, up_to=10)
    journal.close()

    journal = Journal(tmp_path / "j.db")

    assert journal.first_position() is None
    assert journal.position == 10


def test_a_full_quota_is_unavailable_and_pruning_makes_room(tmp_path):
    journal = Journal(tmp_path / "j.db", max_page_count=40)

    with pytest.raises(UnavailableError, match="free disk space"):
        append(journal, 100, size=4000)

    written = journal.position
    with journal.transaction():
        journal.prune(before_ms=0, keep_bytes=0, up_to=written)
    append(journal, 1, size=4000)
    assert [row.position for row in journal.rows()] == [written + 1]


def test_pruning_keeps_what_a_restart_needs(tmp_path):
    journal = Journal(tmp_path / "j.db")
    append(journal, 10)

    with journal.transaction():
        journal.prune(before_ms=1_000, keep_bytes=0, up_to=6)

    assert [row.position for row in journal.rows()] == [7, 8, 9, 10]


def test_the_oldest_row_since_a_time_is_found(tmp_path):
    journal = Journal(tmp_path / "j.db")
    append(journal, 10, now_ms=100)

    assert [journal.first_since(since) for since in (0, 100, 105, 109, 110)] == [1, 1, 6, 10, None]


def test_a_reader_sees_what_is_committed_and_cannot_write(tmp_path):
    journal = Journal(tmp_path / "j.db")
    append(journal, 2)

    reader = open_reader(tmp_path / "j.db")

    assert reader.execute("SELECT count(*) FROM journal").fetchone() == (2,)
    with pytest.raises(Exception, match="readonly"):
        reader.execute("DELETE FROM journal")
    reader.close()


def test_what_may_wait_is_kept_and_the_next_row_is_flushed_again(tmp_path):
    journal = Journal(tmp_path / "judge.db")
    with journal.transaction(soon=True):
        journal.set_meta("late", b"1")

    synchronous = journal.connection.execute("PRAGMA synchronous").fetchone()[0]

    assert (journal.meta("late"), synchronous) == (b"1", 2)
    journal.close()


def test_a_journal_that_was_laid_out_and_never_written_opens_again_after_a_crash(tmp_path):
    journal = Journal(tmp_path / "judge.db")
    with journal.transaction():
        journal.append(1, "messages", b"first")
    journal.checkpoint()
    (tmp_path / "copy").mkdir()
    for path in tmp_path.glob("judge.db*"):
        shutil.copy(path, tmp_path / "copy")  # what a power cut would leave
    journal.close()

    again = Journal(tmp_path / "copy" / "judge.db")

    assert [row.entries for row in again.rows()] == [b"first"]
    again.close()


def test_whoever_reads_for_long_does_not_hold_up_the_writer(tmp_path):
    journal = Journal(tmp_path / "j.db")
    append(journal, 100)
    reading = iter(journal.rows())
    next(reading)
    append(journal, 100)
    journal.checkpoint()

    restarting = threading.Thread(target=journal.restart)
    restarting.start()
    restarting.join(15)

    assert not restarting.is_alive()
    assert len(list(reading)) == 99


def test_a_row_without_a_transaction_is_one_of_its_own(tmp_path):
    journal = Journal(tmp_path / "j.db")

    row = journal.append(7, "messages", b"x")

    with contextlib.closing(open_reader(tmp_path / "j.db")) as reader:
        assert reader.execute("SELECT * FROM journal").fetchall() == [tuple(row)]


def test_a_row_that_finds_no_room_leaves_the_position_as_it_was(tmp_path):
    journal = Journal(tmp_path / "j.db", max_page_count=40)
    append(journal, 1)

    with pytest.raises(UnavailableError, match="free disk space"):
        journal.append(7, "messages", b"x" * 400_000)

    append(journal, 1)
    assert [row.position for row in journal.rows()] == [1, 2]


def test_any_folder_will_do(tmp_path):
    folder = tmp_path / "50% of it? #1 ä"
    journal = Journal(folder / "j.db")
    append(journal, 3)

    assert len(list(journal.rows())) == 3
