"""All by which people prove who they are, put together. Wiring only: what each part does is said in its own file."""

from dataclasses import dataclass

from folkmoot.server import libraries
from folkmoot.server.background import Background
from folkmoot.server.callers import Callers
from folkmoot.server.core import Core
from folkmoot.server.people.api_keys import ApiKeys
from folkmoot.server.people.guesses import Guesses
from folkmoot.server.people.mail import Mail
from folkmoot.server.people.oidc import Provider
from folkmoot.server.people.passwords import Passwords
from folkmoot.server.people.provider_logins import ProviderLogins
from folkmoot.server.people.registration import Registration
from folkmoot.server.people.resets import Resets
from folkmoot.server.people.sealing import Sealer
from folkmoot.server.people.second_factors import Codes, SecondFactors
from folkmoot.server.people.sessions import Sessions
from folkmoot.server.tokens import Tokens


@dataclass(frozen=True)
class Logins:
    """The parts, each of which a method of AuthService calls."""

    callers: Callers
    guesses: Guesses
    sessions: Sessions
    factors: SecondFactors
    resets: Resets
    api_keys: ApiKeys
    registration: Registration
    provider: ProviderLogins


def make(core: Core, tokens: Tokens, passwords: Passwords, background: Background) -> Logins:
    """Put them together; raise INVALID_FIELD for settings that make no sense."""
    libraries.require("segno", setting="totp", extra="server")
    callers, guesses = Callers(core, tokens, background), Guesses(core, passwords)
    sealer = Sealer(tokens.sealing_key, core.random)
    codes = Codes(core, sealer)
    sessions = Sessions(core, guesses, codes, tokens, callers.forget)
    mail = Mail(core, background)
    return Logins(
        callers=callers,
        guesses=guesses,
        sessions=sessions,
        factors=SecondFactors(core, guesses, codes, callers.forget),
        resets=Resets(core, guesses, passwords, mail, callers.forget),
        api_keys=ApiKeys(core, callers.forget),
        registration=Registration(core, guesses, passwords),
        provider=ProviderLogins(core, sessions, Provider(core.config, core.clock), sealer),
    )
