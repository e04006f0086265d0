"""Numbers are shown with the digits that a person reads."""

import pytest

from keeptake.rounding import rounded


@pytest.mark.parametrize(
    ("value", "shown"),
    [(121.00594634652224, 121.006), (0.2659330221289131, 0.266), (0.00123456, 0.00123), (-0.00042, -0.00042), (0.0, 0.0)],
)
def test_three_decimals_or_three_digits(value, shown):
    assert rounded(value) == shown
