"""Cases of a test of which only some run each time, the rest with `-m slow`."""

import pytest


def some(values, *quick):
    """Returns the values of one name for `parametrize`, all but the quick marked slow."""
    assert set(quick) <= set(values)
    return [
        value if value in quick else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]
