"""Tests of vedette.cold: what it lets go of, and how it keeps the heap in one piece."""

import gc

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
