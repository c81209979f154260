"""Registration: an organization makes its own account and first user, where the operator lets organizations do so.

The account is a name at this server and nothing more: with whom it computes, ledgers decide. So all that is to be bounded is
how many come from one place.
"""

from sqlalchemy import Connection

from folkmoot.server.audit import events
from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.server.nodes.attempts import Places
from folkmoot.server.people import accounts
from folkmoot.server.people.accounts import Organization, User
from folkmoot.server.people.guesses import Guesses
from folkmoot.server.people.passwords import Passwords, check_strength
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

ROLE = "Organization Admin"
INTENT = "organization.register"


class Registration:
    """Organizations that register themselves."""

    def __init__(self, core: Core, guesses: Guesses, passwords: Passwords) -> None:
        self._core = core
        self._guesses = guesses
        self._passwords = passwords
        self._places = Places()

    async def register(self, account: Organization, user: User, password: str, *, place: str) -> None:
        """Make an account and its first user; the same again changes nothing.

        Raises REGISTRATION_CLOSED, NAME_TAKEN, ID_TAKEN, PASSWORD_WEAK, LOGIN_FAILED, TOO_MANY.
        """
        if self._core.config.registration != "open":
            text = "Organizations do not register themselves at this server"
            raise FolkmootError(errors_pb2.ERROR_REASON_REGISTRATION_CLOSED, text)
        accounts.check_not_reserved(account.name, self._core.config.oidc_new_users)
        check_strength(password, user.username, user.email, account.name)
        is_known = await self._core.store.read(lambda connection: _is_known(connection, account, user))
        if is_known:
            # Else whoever knows the ids could guess here, where nothing locks him out.
            async with self._guesses.turn(user.username, INTENT) as guessed:
                await guessed.check_password(password)
            return
        self._places.count(place, account.created_at)
        async with self._passwords.slot():
            hashed = await self._passwords.make(password)
        data = {"organization_account_id": account.organization_account_id, "user_id": user.user_id}
        first = Caller(
            options.CALLER_USER, user_id=user.user_id, organization_account_id=account.organization_account_id
        )
        record = events.prepare(intent=INTENT, caller=first, data=data, now=account.created_at)

        def operation(connection: Connection) -> None:
            if _is_known(connection, account, user):
                raise accounts.id_taken(user.user_id)
            accounts.add_organization(connection, account)
            accounts.add_user(connection, user, hashed)
            record(connection)

        await self._core.store.write(operation)


def _is_known(connection: Connection, account: Organization, user: User) -> bool:
    """Tell whether the very same was registered before; raise ID_TAKEN if an id was used for something else."""
    known_account = accounts.find_organization(connection, account.organization_account_id)
    found = accounts.find_user(connection, user.user_id)
    if known_account is None and found is None:
        return False
    if known_account is None or found is None:
        raise accounts.id_taken(user.user_id if found else account.organization_account_id)
    known = found[0]
    same_user = (known.username, known.email, known.organization_account_id)
    if known_account.name != account.name or same_user != (user.username, user.email, user.organization_account_id):
        raise accounts.id_taken(user.user_id)
    return True
