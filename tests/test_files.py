import os
import signal
import subprocess
import sys

import conftest
import pytest

from forgetting.files import remove_leftovers, temporary_beside, write_atomically


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "x[1].json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"

    def full(*_):
        raise OSError("full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="full"):
        write_atomically(path, b"three")
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"two"


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_leftovers_go_with_their_writer(tmp_path):
    script = (
        "import sys, time; from forgetting.files import temporary_beside\n"
        "with temporary_beside(sys.argv[1]): print(flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "x")]
    writer = subprocess.Popen(words, cwd=conftest.PROJECT, stdout=subprocess.PIPE)
    writer.stdout.readline()
    (left,) = remove_leftovers(tmp_path)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert left.exists()
    assert remove_leftovers(tmp_path) == [] and not left.exists()
    (tmp_path / ".x.tmp").touch()  # anything else stays
    assert remove_leftovers(tmp_path) == [] and (tmp_path / ".x.tmp").exists()


def test_a_file_taken_for_a_leftover_before_its_lock_is_made_again(tmp_path, monkeypatch):
    """Another process may look between the making of the file and its lock."""
    taken = []
    exists = os.path.exists

    def gone_once(path):
        if not taken:
            taken.append(path)
            os.unlink(path)
        return exists(path)

    monkeypatch.setattr("os.path.exists", gone_once)
    with temporary_beside(tmp_path / "x") as file:
        assert os.path.exists(file.name) and file.name != taken[0]
    assert not list(tmp_path.iterdir())
