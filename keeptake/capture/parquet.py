"""The export's rows as Parquet, row group by row group.

Arrow batches come through ADBC from one statement, so from one snapshot; Parquet is written forwards with its index at the end,
and can be sent while it is made. Belongs here: that. Does not: the rows' columns (`ledger/exports.py`).
"""

import io
import threading
from typing import Any

from keeptake.errors import LedgerUnavailableError
from keeptake.ledger.connection import libpq_url
from keeptake.ledger.exports import place_of
from keeptake.ledger.serving import DEADLINE_S

BATCH_BYTES = 4 << 20


class ParquetReader:
    """A Parquet file that is made while it is read.

    Parameters
    ----------
    url : str
        The ledger's.
    query : str
        Its rows.
    arguments, owner, deadline_s
        As for `CopyReader`: Parquet is one of the owner's exports too.

    Raises
    ------
    BusyError
        If the owner runs as many exports already.
    LedgerUnavailableError
        If the ledger does not answer.
    """

    def __init__(self, url: str, query: str, *, arguments: dict[str, Any], owner: str, deadline_s: float = DEADLINE_S) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from adbc_driver_postgresql import dbapi

        self.rows = 0
        self._lock = threading.Lock()
        self._is_done = False
        # Before ADBC, which has no time-out of its own: a ledger that does not answer is told by this connection.
        self._place = place_of(arguments, owner, deadline_s=deadline_s)
        try:
            self._connection = dbapi.connect(libpq_url(url), autocommit=True)
            self._cursor: Any = self._connection.cursor(
                adbc_stmt_kwargs={"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
            )
            self._cursor.execute("SET timezone = 'UTC'")
            self._cursor.execute(query)
            self._batches = self._cursor.fetch_record_batch()
        except Exception as failure:
            self._place.close()
            raise LedgerUnavailableError("no connection to the ledger for an export") from failure
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._batches.schema, compression="zstd")

    def read(self) -> bytes:
        """Next piece; empty at the end."""
        with self._lock:
            while not self._is_done and not self._sink.tell():
                try:
                    batch = self._batches.read_next_batch()
                except StopIteration:
                    self._writer.close()
                    self._is_done = True
                    break
                self._writer.write_batch(batch)
                self.rows += batch.num_rows
            piece = self._sink.getvalue()
            self._sink.seek(0)
            self._sink.truncate()
            return piece

    def break_off(self) -> None:
        """Ask the server to stop."""
        if not self._is_done:
            self._cursor.adbc_cancel()

    def close(self) -> None:
        """Free the server's side."""
        with self._lock:
            self._cursor.close()
            self._connection.close()
            self._place.close()
