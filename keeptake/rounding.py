"""How many digits of a number does a person read? Belongs here: that choice, for every table that people see."""

SMALL = 0.1  # below, three decimals would lose digits that count


def rounded(value: float) -> float:
    """Round to three decimals, or to three digits of what is smaller than that shows.

    >>> rounded(121.00594634652224), rounded(0.00123456)
    (121.006, 0.00123)
    """
    return round(value, 3) if abs(value) >= SMALL else float(f"{value:.3g}")
