"""Which takes are still there, for work and for people: those that were not erased.

Belongs here: the condition, in the one wording that every query uses. Does not: erasing.
"""

LIVING = "erased_at IS NULL"  # no other table has this column, so it reads the same with and without an alias
