"""What became of the rows that a reader was given. Belongs here: the report of one reader. Does not: the readers' rules."""

from dataclasses import dataclass, field

MOST_EXAMPLES = 5


@dataclass
class Reading:
    """A split as one reader saw it.

    Attributes
    ----------
    reader, split : str
    source : str
        The package that was run, or the documented rules that stood in for it.
    rows_in, rows_out : int
        Rows that were there, and rows that a training would see.
    losses : dict
        Why rows were lost, with a few examples each.
    """

    reader: str
    split: str
    source: str
    rows_in: int = 0
    rows_out: int = 0
    losses: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether the reader read without a loss."""
        return not self.losses and self.rows_in == self.rows_out

    def lose(self, row: str, error: object) -> None:
        """Note a row that the reader would not see, and why."""
        examples = self.losses.setdefault(f"{error}" if not isinstance(error, KeyError) else str(error.args[0]), [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(row)

    def fail(self, error: object) -> "Reading":
        """Note that the reader stops before the first row."""
        self.lose("all", error)
        return self
