"""Text in CSV files that a spreadsheet program must not run as a formula.

Names of images and classes come from other people, and Excel, LibreOffice and Google Sheets run cells that begin with
``=``, ``+``, ``-`` or ``@``. Such text gets an apostrophe before it, which these programs read as "this is text".
Reading takes it away again, so that names in tables stay what they are.

References
----------
OWASP, "CSV Injection": https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_FORMULA = r"^('*[=+\-@\t\r])"
_GUARDED = r"^'('*[=+\-@\t\r])"


def guarded_text(text: str) -> str:
    """Return text as a CSV cell that no spreadsheet program runs; most text is returned unchanged."""
    return re.sub(_FORMULA, r"'\1", text)


def guarded(table: pa.Table) -> pa.Table:
    """Return a table whose text may be written as CSV; see `guarded_text`."""
    return _replaced(table, _FORMULA, r"'\1")


def unguarded(table: pa.Table) -> pa.Table:
    """Return the table that `guarded` was given."""
    return _replaced(table, _GUARDED, r"\1")


def _replaced(table: pa.Table, pattern: str, replacement: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            text = pc.replace_substring_regex(table.column(index), pattern, replacement)
            table = table.set_column(index, field, text)
    return table
