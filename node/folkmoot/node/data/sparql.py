"""SPARQL endpoints: the data owner's SELECT, asked over HTTP, its JSON answer read as it comes.

Values have the types of their literals (xsd:integer, xsd:decimal, xsd:date and so on), IRIs and everything else are texts. A column's type
is guessed from the first rows, unless the data owner gives it; a later value that does not fit makes the table unreadable. Conditions are
applied by the engine behind: the endpoint executes the data owner's query and no other.
"""

import base64
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from itertools import takewhile
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import ijson
import pyarrow as pa

from folkmoot.node.data.rows import MICROSECONDS, MOMENT, SAMPLE_ROWS, Row, guess_schema, reader_of
from folkmoot.node.data.table_source import Condition, Settings

_MEDIA_TYPE = "application/sparql-results+json"
_XSD = "http://www.w3.org/2001/XMLSchema#"


class _NoRedirect(HTTPRedirectHandler):
    """The credential is this endpoint's and nobody else's."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


class SparqlTable:
    """Implements `TableSource`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        names, rows = self._ask()
        with closing(rows):
            first = [row for row, _ in zip(rows, range(SAMPLE_ROWS), strict=False)]
        self.schema = _with_zones(guess_schema(names, first, settings.types), first, settings.types)

    def read(self, columns: Sequence[str], conditions: Sequence[Condition]) -> pa.RecordBatchReader:  # noqa: ARG002
        """See TableSource."""
        indexes = [self.schema.get_field_index(name) for name in columns]
        _, rows = self._ask()
        wanted = pa.schema([self.schema.field(index) for index in indexes])
        return reader_of(([row[index] for index in indexes] for row in rows), wanted)

    def warnings(self) -> Sequence[str]:
        """See TableSource."""
        return ()

    def _ask(self) -> tuple[list[str], Generator[Row, None, None]]:
        settings, url = self._settings, urlsplit(self._settings.url)
        headers = {"Accept": _MEDIA_TYPE, "Content-Type": "application/x-www-form-urlencoded"}
        if settings.secret:
            login = f"{unquote(url.username or '')}:{settings.secret}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        place = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path or "/", url.query, ""))
        request = Request(place, urlencode({"query": settings.sql}).encode(), headers)  # noqa: S310 - http or https, as node.toml was checked for
        tls = ssl.create_default_context(cafile=settings.certificate_authority or None)
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=tls), _NoRedirect)
        try:
            response = opener.open(request, timeout=settings.timeout_seconds)
        except HTTPError as error:
            error.close()
            raise OSError(f"the endpoint answers {error.code} {error.reason}") from None
        if response.headers.get_content_type() != _MEDIA_TYPE:
            response.close()
            raise OSError(f"the endpoint answers {response.headers.get_content_type()} and not {_MEDIA_TYPE}")
        events = ijson.parse(response)
        names = [value for prefix, _, value in takewhile(_is_head, events) if prefix == "head.vars.item"]
        return names, _rows(response, events, names)


def open_table(settings: Settings) -> SparqlTable:
    """Ask the endpoint for its first rows. Raises OSError if it does not answer."""
    return SparqlTable(settings)


def _is_head(event: tuple[str, str, Any]) -> bool:
    """Whether the answer's head goes on: it comes before the results, or the answer is none."""
    prefix, kind, _ = event
    if prefix == "results":
        raise ValueError("the endpoint's answer does not begin with its head")
    return (prefix, kind) != ("head", "end_map")


def _rows(response: Any, events: Iterator[Any], names: Sequence[str]) -> Generator[Row, None, None]:
    with closing(response):
        for binding in ijson.items(events, "results.bindings.item"):
            yield [_value(binding[name]) if name in binding else None for name in names]


def _value(term: Mapping[str, str]) -> Any:
    """What a term stands for; ValueError if it is not what its type says."""
    name = term.get("datatype", "")
    convert = _LITERALS.get(name.removeprefix(_XSD)) if name.startswith(_XSD) else None
    return convert(term["value"]) if convert else term["value"]


def _truth(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text]


def _with_zones(schema: pa.Schema, rows: Sequence[Row], told: Mapping[str, str]) -> pa.Schema:
    """Make moments of those times that say how far they are from UTC."""
    for index, field in enumerate(schema):
        zoned = {row[index].tzinfo is not None for row in rows if isinstance(row[index], datetime)}
        if field.type.equals(MICROSECONDS) and field.name not in told and zoned == {True}:
            schema = schema.set(index, pa.field(field.name, MOMENT))
    return schema


_LITERALS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(
        [
            "integer",
            "int",
            "long",
            "short",
            "byte",
            "nonNegativeInteger",
            "positiveInteger",
            "nonPositiveInteger",
            "negativeInteger",
            "unsignedInt",
            "unsignedLong",
            "unsignedShort",
            "unsignedByte",
        ],
        int,
    ),
    "decimal": Decimal,
    "double": float,
    "float": float,
    "boolean": _truth,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "dateTime": datetime.fromisoformat,
    "dateTimeStamp": datetime.fromisoformat,
}
