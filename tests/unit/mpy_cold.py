"""Tests of vedette.cold: what it lets go of, and how it keeps the heap in one piece."""

import gc
import sys

from vedette.cold import Cold, Dense


def test_garbage_is_collected_often_until_the_last_user_ends():
    before = gc.threshold()
    first, second = Dense(), Cold()
    first.__enter__()
    close = gc.threshold()
    assert 0 < close < 16384
    second.__enter__()  # they need not end in the order in which they began
    first.__exit__(None, None, None)
    assert gc.threshold() == close
    second.__exit__(None, None, None)
    assert gc.threshold() == before


def test_what_the_application_sets_meanwhile_stays():
    before = gc.threshold()
    try:
        with Dense():
            gc.threshold(65536)
        assert gc.threshold() == 65536
    finally:
        gc.threshold(before)


def _networks():
    from vedette import networks

    return networks


def test_what_was_there_stays_and_what_came_goes():
    import vedette

    with Cold():
        came = _networks()
    assert "vedette.networks" not in sys.modules and not hasattr(vedette, "networks")
    assert _networks() is not came
    with Cold():
        there = _networks()
    assert sys.modules["vedette.networks"] is there is vedette.networks
    del sys.modules["vedette.networks"], vedette.networks


def test_two_at_a_time_leave_nothing():
    first, second = Cold(), Cold()
    first.__enter__()
    _networks()
    second.__enter__()
    first.__exit__(None, None, None)
    assert "vedette.networks" not in sys.modules
    _networks()  # again, for the one that is left
    second.__exit__(None, None, None)
    assert "vedette.networks" not in sys.modules
