"""What may be wrong with what a server works with: database and its clock, payload store, mail, OpenID Connect provider."""

import asyncio
import json
import logging
import smtplib
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from folkmoot.server.config import Config
from folkmoot.server.config_rules import BROKERS
from folkmoot.server.observation import logs
from folkmoot.server.operation.backup import payload_folder
from folkmoot.server.operation.check.finding import Finding, Found, State, line
from folkmoot.server.operation.data_folder import DATABASE_FILE
from folkmoot.server.payloads.stores import open_store
from folkmoot.server.people.mail import MailServer, mail_server
from folkmoot.server.store import databases, migrate

if TYPE_CHECKING:
    from folkmoot.server.wakers.amqp import AmqpWaker

MOST_CLOCK_SECONDS = 5.0
"""How much two clocks may differ; authentications are good for minutes only."""
OLDEST_POSTGRES = 130000
PATIENCE_SECONDS = 10.0


def database(config: Config, now: datetime) -> Found:
    """Reach the database; look at its release, its migrations, its clock."""
    if not config.database and not (config.data / DATABASE_FILE).exists():
        yield Finding("database", State.DOUBTFUL, "there is none yet", "the first start makes it")
        return
    opened = databases.connect(config.database, config.data / DATABASE_FILE)
    try:
        with opened.reading.begin() as connection:
            yield _reached(connection)
            yield _migrated(migrate.present(connection))
            yield from _clock(connection, now)
    except SQLAlchemyError as error:
        mend = (
            "is it running, and are address, user, password and pg_hba.conf right?"
            if config.database
            else ("put the newest backup back: `folkmoot server restore`")
        )
        yield Finding("database", State.WRONG, f"it can't be used: {line(error)}", mend)
    finally:
        opened.writing.dispose()
        opened.reading.dispose()


def _reached(connection: Connection) -> Finding:
    if connection.dialect.name == "sqlite":
        if (found := connection.execute(text("PRAGMA quick_check(1)")).scalar()) != "ok":
            return Finding(
                "database",
                State.WRONG,
                f"it is damaged: {found}",
                "stop the server, put the newest backup back: `folkmoot server restore`",
            )
        return Finding("database", State.GOOD, f"SQLite {connection.execute(text('SELECT sqlite_version()')).scalar()}")
    number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    told = f"PostgreSQL {connection.execute(text('SHOW server_version')).scalar()}"
    if number < OLDEST_POSTGRES:
        return Finding("database", State.WRONG, told, "upgrade it to 13 or later")
    return Finding("database", State.GOOD, told)


def _migrated(number: str | None) -> Finding:
    newest = migrate.newest()
    if number is None:
        return Finding("migrations", State.DOUBTFUL, "the database is empty", "the first start makes its tables")
    if number > newest:
        return Finding(
            "migrations",
            State.WRONG,
            f"the database is at {number}, this release knows {newest}",
            "run the later release, or have it go back: `folkmoot server migrate --down`",
        )
    if number < newest:
        return Finding(
            "migrations",
            State.DOUBTFUL,
            f"the database is at {number} of {newest}",
            "take a backup; the next start migrates, or `folkmoot server migrate`",
        )
    return Finding("migrations", State.GOOD, f"the database is at {number}, the newest")


def _clock(connection: Connection, now: datetime) -> Found:
    """Compare with the database's own clock if it has one, and with what this server has noted itself."""
    if connection.dialect.name == "postgresql":
        theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        yield _compared("the database's", (datetime.now(UTC) - theirs).total_seconds())
    if migrate.present(connection) is None:
        return
    newest = connection.execute(text("SELECT max(created_at) FROM events")).scalar()
    if newest is not None and newest / 1e6 > now.timestamp() + MOST_CLOCK_SECONDS:
        yield Finding(
            "clock",
            State.WRONG,
            "the newest event is of the future: this clock went back",
            "set it by NTP; until then nodes are refused",
        )
    else:
        yield Finding("clock", State.GOOD, now.isoformat(timespec="seconds"))


def _compared(whose: str, seconds: float) -> Finding:
    if abs(seconds) > MOST_CLOCK_SECONDS:
        return Finding(
            "clock", State.WRONG, f"it differs from {whose} by {seconds:.0f} s", "let both machines follow NTP"
        )
    return Finding("clock", State.GOOD, f"as {whose}")


def waker(config: Config, _now: datetime) -> Found:
    """Open a queue at the broker, where one wakes the instances."""
    if not config.waker.startswith(BROKERS):
        if config.waker == "local" and config.database:
            yield Finding(
                "waker",
                State.DOUBTFUL,
                "local: another instance on this database would notice changes seconds later",
                "leave waker out if there are several",
            )
        return
    from folkmoot.server.wakers.amqp import AmqpWaker

    host, broker = urlsplit(config.waker).hostname, AmqpWaker(config.waker, logs.make("error"))
    from aio_pika.exceptions import AMQPError

    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it tells what is told here once more, and less clearly
    try:
        asyncio.run(_opened(broker))
    except (AMQPError, OSError, ValueError) as error:
        yield Finding(
            "waker",
            State.WRONG,
            f"the broker at {host} can't be used: {type(error).__name__} {line(error)}".strip(),
            "is it running, and are address, user, password and virtual host right? Without it instances poll",
        )
    else:
        yield Finding("waker", State.GOOD, f"the broker at {host} answers")


async def _opened(broker: "AmqpWaker") -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), broker.connect():
        pass


def payloads(config: Config, _now: datetime) -> Found:
    """Write, read and remove a few bytes where payloads rest."""
    if (folder := payload_folder(config)) is not None and not folder.parent.exists():
        yield Finding("payloads", State.DOUBTFUL, f"{folder} is not there", "the first start makes it")
        return
    store = open_store(config.payloads, config.data)
    try:
        asyncio.run(store.check())
    finally:
        store.close()
    yield Finding("payloads", State.GOOD, f"{config.payloads or folder}: written, read, removed")


def mail(config: Config, _now: datetime) -> Found:
    """Greet the mail server as mails do, and log in; nothing is sent."""
    if (place := mail_server(config)) is None:
        yield Finding(
            "mail",
            State.DOUBTFUL,
            "none: who loses a password needs an administrator",
            "set smtp, mail_from and public_url",
        )
        return
    try:
        knows = _greeted(place)
    except smtplib.SMTPAuthenticationError as error:
        told, mend = f"{place.host} refuses {place.user}: {error.smtp_code}", "look at smtp_password_file"
        yield Finding("mail", State.WRONG, told, mend)
    except (OSError, smtplib.SMTPException) as error:
        told, mend = (
            f"{place.host} can't be used: {line(error)}",
            "look at smtp: smtp://user@host:587 or smtps://user@host",
        )
        yield Finding("mail", State.WRONG, told, mend)
    else:
        yield Finding("mail", State.GOOD, f"{place.host} answers" + (" and knows the user" if knows else ""))


def _greeted(place: MailServer) -> bool:
    """Connect as mails will be sent; return whether it has let the user in. No password goes where TLS is missing."""
    context = ssl.create_default_context()
    if place.is_tls:
        session: smtplib.SMTP = smtplib.SMTP_SSL(place.host, place.port, timeout=PATIENCE_SECONDS, context=context)
    else:
        session = smtplib.SMTP(place.host, place.port, timeout=PATIENCE_SECONDS)
    with session:
        session.ehlo()
        if not (place.is_tls or place.is_open):
            session.starttls(context=context)
            session.ehlo()
        if place.user and place.password:
            session.login(place.user, place.password)
            return True
    return False


def provider(config: Config, _now: datetime) -> Found:
    """Ask the OpenID Connect provider who it is."""
    if not config.oidc_issuer:
        return
    address = config.oidc_issuer.rstrip("/") + "/.well-known/openid-configuration"
    mend = "look at oidc_issuer: this address must answer, in this network"
    try:
        with urlopen(address, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 -- the settings allow https, or this machine
            told, date = json.load(answer), answer.headers.get("Date")
    except (OSError, ValueError) as error:
        yield Finding("provider", State.WRONG, f"{address}: {line(error)}", mend)
        return
    if told.get("issuer") != config.oidc_issuer:
        yield Finding(
            "provider",
            State.WRONG,
            f"it calls itself {told.get('issuer')}",
            "write it so in oidc_issuer, slash by slash",
        )
    else:
        yield Finding("provider", State.GOOD, f"{config.oidc_issuer} answers")
    if date:
        yield _compared("the provider's", (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
