"""What a run's log says of long work."""

from keeptake.progress import to_log


def test_a_stage_is_named_when_it_begins_and_when_it_ends():
    """A manifest ran 59 s without a line, hearing 28 s before its first: lines came every ten seconds of one stage alone."""
    said = []
    progress = to_log(said.append, every_s=60.0)
    for stage, done, total in (("looking for leaks", 0, 1), ("looking for leaks", 1, 1), *(("hearing", n, 3) for n in range(4))):
        progress(stage, done, total)
    progress("import", 7, None)
    assert said == ["looking for leaks: begun", "looking for leaks: done", "hearing: 0 of 3", "hearing: 3 of 3", "import: 7"]
