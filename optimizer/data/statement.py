"""Whether a text is one SELECT statement: the first of two fences, the database is the other."""

import re

from optimizer.errors import DataError

_TOKEN = re.compile(
    r"""
      (?P<skip> \s+ | --[^\n]* )
    | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$ )
    | (?P<comment> /\* )
    | (?P<end> ; )
    | (?P<word> \w[\w$]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


def check_statement(query: str) -> str:
    """The statement, without a semicolon at its end.

    Raises:
        DataError: it is empty, not a SELECT or WITH, or more than one statement.
    """
    words, position, end = [], 0, None
    while position < len(query):
        match = _TOKEN.match(query, position)
        assert match is not None  # "other" takes any character
        kind, start, position = match.lastgroup, match.start(), match.end()
        if kind == "quoted" and match[0][0] == "'" and "\\" in match[0]:
            # E'\'' ends elsewhere than '\'': whose reading is right depends on the server.
            raise DataError("query: a backslash within a quoted text")
        if kind == "comment":
            position = _after_comment(query, start)
        elif kind == "end":
            end = start if end is None else end
        elif kind != "skip":
            if end is not None:
                raise DataError("query: expected one statement, got several")
            words.append(match[0].upper())
    if not words or words[0] not in ("SELECT", "WITH"):
        first = words[0] if words else "nothing"
        raise DataError(f"query: expected SELECT or WITH ... SELECT, got {first}")
    return query if end is None else query[:end].rstrip()


def _after_comment(query: str, start: int) -> int:
    """Comments nest in PostgreSQL and not in SQLite: both must find the end at the same place."""
    end = query.find("*/", start + 2)
    if end < 0 or "/*" in query[start + 2 : end]:
        raise DataError("query: a comment within a comment, or one without an end")
    return end + 2
