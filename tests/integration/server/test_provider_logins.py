"""Logins by a real OpenID Connect provider: who gets in, and what somebody tries who stands beside them."""

import asyncio
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from folkmoot.server.app import utc_now
from folkmoot.server.config import Config
from folkmoot.server.people import oidc
from folkmoot.server.people.accounts import mail_address
from folkmoot.trust import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import options_pb2 as options
from tests.integration.harness import PASSWORD, Clock, Server, User, bearer, reason, refused, server
from tests.integration.server.factors import login
from tests.integration.server.provider import CALLBACK, CLIENT_ID, oidc_provider
from tests.polling import until

pytestmark = pytest.mark.needs_oidc_provider


@pytest.fixture(scope="module")
def provider():
    with oidc_provider() as running:
        yield running


async def user_with_mail(s: Server, username: str, email: str) -> User:
    root = await s.root()
    user = await s.user(username, root.organization_account_id, ["Viewer"])
    await set_mail(s, root, user, email)
    return user


async def set_mail(s: Server, by: User, user: User, email: str) -> None:
    change = admin.UpdateUserRequest(user_id=user.user_id, email=email, own_password=PASSWORD)
    change.update_mask.paths.append("email")
    await s.admin.UpdateUser(change, metadata=by.metadata)


async def start(s, redirect_uri=CALLBACK):
    return await s.auth.StartCodeLogin(auth.StartCodeLoginRequest(redirect_uri=redirect_uri))


def finish(s, begun, code, **changes):
    given = {"code_login_id": begun.code_login_id, "state": begun.state, "code": code} | changes
    return s.auth.FinishCodeLogin(auth.FinishCodeLoginRequest(**given))


async def come(s, provider, who):
    """Log in at the provider; return what finishes the login."""
    begun = await start(s)
    back = await provider.agree(begun.authorization_uri, who)
    assert back["state"] == begun.state
    return finish(s, begun, back["code"])


async def me(s, answer):
    return await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=bearer(answer.tokens.access_token))


async def test_a_login_is_made_at_the_provider_anew_however_much_it_is_used(tmp_path, provider):
    """Whom the provider has thrown out does not stay in for ever by renewing what he has."""
    clock = Clock()
    async with server(tmp_path, clock=clock, refresh_token_days=3, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "ada", "ada@alpha.example")
        tokens = (await (await come(s, provider, "ada"))).tokens
        ends = tokens.refresh_expires_at
        for _ in range(2):
            clock.ahead += timedelta(days=1)
            tokens = (await s.auth.Refresh(auth.RefreshRequest(refresh_token=tokens.refresh_token))).tokens
            assert tokens.refresh_expires_at == ends
        clock.ahead += timedelta(days=1)
        again = s.auth.Refresh(auth.RefreshRequest(refresh_token=tokens.refresh_token))
        assert reason(await refused(again)) == "TOKEN_INVALID"


# ---- in a browser --------------------------------------------------------------------------------------------------


async def test_somebody_whose_mail_address_the_provider_has_verified_gets_in(tmp_path, provider):
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        ada = await user_with_mail(s, "ada", "ada@alpha.example")
        who = await me(s, await (await come(s, provider, "ada")))
        assert (who.user_id, who.caller) == (ada.user_id, options.CALLER_USER)
        [bound] = await s.events("user.bind_identity")
        assert ada.user_id in bound.data


async def test_from_then_on_the_subject_counts_and_not_the_address(tmp_path, provider):
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        ada = await user_with_mail(s, "ada", "ada@alpha.example")
        await (await come(s, provider, "ada"))
        root = await s.root()
        await set_mail(s, root, ada, "ada@elsewhere.example")
        await user_with_mail(s, "eve", "ada@alpha.example")
        assert (await me(s, await (await come(s, provider, "ada")))).user_id == ada.user_id


async def test_who_writes_somebodys_address_into_his_own_account_does_not_get_him_into_it(tmp_path, provider):
    """Eve waits with an account for Ada, who would work in it, and Eve would read along."""
    async with server(tmp_path, oidc_new_users="Hub", **provider.settings(tmp_path)) as s:
        root = await s.root()
        eve = await s.user("eve", root.organization_account_id, ["Viewer"])
        await set_mail(s, eve, eve, "ada@alpha.example")
        assert reason(await refused(await come(s, provider, "ada"))) == "LOGIN_FAILED"
        assert await s.events("user.bind_identity") == []
        # An administrator who sets it answers for it.
        await set_mail(s, root, eve, "ada@alpha.example")
        assert (await me(s, await (await come(s, provider, "ada")))).user_id == eve.user_id


@pytest.mark.parametrize("by", ["registration", "an administrator"])
async def test_where_anybody_is_an_administrator_only_the_servers_answer_for_addresses(tmp_path, provider, by):
    async with server(tmp_path, registration="open", **provider.settings(tmp_path)) as s:
        root = await s.root()
        address = "ada@alpha.example"
        wish = auth.RegisterOrganizationRequest(
            organization_account_id=s.new_id(), name="Evil", user_id=s.new_id(), username="eve", password=PASSWORD
        )
        wish.email = address if by == "registration" else "eve@evil.example"
        await s.auth.RegisterOrganization(wish)
        if by != "registration":
            eve = await s.log_in("eve", wish.user_id, wish.organization_account_id)
            trap = admin.CreateUserRequest(user_id=s.new_id(), username="trap", password=PASSWORD, email=address)
            trap.organization_account_id = wish.organization_account_id
            await s.admin.CreateUser(trap, metadata=eve.metadata)
        assert reason(await refused(await come(s, provider, "ada"))) == "LOGIN_FAILED"
        assert (await s.admin.ListUsers(admin.ListUsersRequest(email=address), metadata=root.metadata)).users


async def test_who_sees_what_the_browser_comes_back_with_does_not_get_in(tmp_path, provider):
    """State and code stand in its history, in logs of proxies, on a port that another program listened on."""
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        ada = await user_with_mail(s, "ada", "ada@alpha.example")
        begun, thiefs = await start(s), await start(s)
        code = (await provider.agree(begun.authorization_uri, "ada"))["code"]
        for guess in (begun.state, thiefs.code_login_id, "x"):
            assert reason(await refused(finish(s, begun, code, code_login_id=guess))) == "LOGIN_FAILED"
        assert (await me(s, await finish(s, begun, code))).user_id == ada.user_id


async def test_a_browser_that_was_sent_back_with_another_login_finishes_none(tmp_path, provider, monkeypatch):
    """Eve's state and code in Ada's browser would have Ada work as Eve; also at a provider that looks at no verifier."""

    async def always(_provider, _code, **_login):
        return oidc.Identity(provider.issuer, "eve", "eve@alpha.example")

    monkeypatch.setattr(oidc.Provider, "redeem_code", always)
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "eve", "eve@alpha.example")
        adas, eves = await start(s), await start(s)
        assert reason(await refused(finish(s, adas, "code", state=eves.state))) == "LOGIN_FAILED"
        await finish(s, eves, "code")


async def test_two_letters_that_fold_into_one_are_two_addresses(tmp_path, provider, monkeypatch):
    """K as the Kelvin sign is k in lower case."""
    kelvin = "\u212aate@alpha.example"

    async def always(_provider, _code, **_login):
        return oidc.Identity(provider.issuer, "kelvin", mail_address(kelvin))

    monkeypatch.setattr(oidc.Provider, "redeem_code", always)
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "kate", "kate@alpha.example")
        assert reason(await refused(finish(s, await start(s), "code"))) == "LOGIN_FAILED"


async def test_an_unverified_address_is_nobodys(tmp_path, provider):
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "ada", "ada@alpha.example")
        assert reason(await refused(await come(s, provider, "unverified-ada"))) == "LOGIN_FAILED"
        assert await s.events("user.bind_identity") == []


async def test_nobody_is_made_a_user_silently(tmp_path, provider):
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        root = await s.root()
        assert reason(await refused(await come(s, provider, "stranger"))) == "LOGIN_FAILED"
        users = await s.admin.ListUsers(admin.ListUsersRequest(), metadata=root.metadata)
        assert [user.username for user in users.users] == [root.username]
        assert "LOGIN_FAILED" in [event.outcome for event in await s.events("user.login")]


async def test_where_a_setting_says_so_newcomers_are_users_without_a_role(tmp_path, provider):
    async with server(tmp_path, oidc_new_users="Hub", **provider.settings(tmp_path)) as s:
        root = await s.root()
        who = await me(s, await (await come(s, provider, "newcomer")))
        assert (who.username, list(who.rules)) == ("newcomer@alpha.example", [])
        assert who.organization_account_id == root.organization_account_id
        assert reason(await refused(login(s, who.username, "any password at all"))) == "LOGIN_FAILED"
        assert reason(await refused(await come(s, provider, "unverified-other"))) == "LOGIN_FAILED"
        assert (await me(s, await (await come(s, provider, "newcomer")))).user_id == who.user_id


async def test_a_state_finishes_one_login(tmp_path, provider, monkeypatch):
    """Also at a provider that takes a code twice."""

    async def always(_provider, _code, **_login):
        return oidc.Identity(provider.issuer, "ada", "ada@alpha.example")

    monkeypatch.setattr(oidc.Provider, "redeem_code", always)
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "ada", "ada@alpha.example")
        begun = await start(s)
        answers = await asyncio.gather(*(finish(s, begun, "code") for _ in range(3)), return_exceptions=True)
        assert sorted(isinstance(answer, auth.FinishCodeLoginResponse) for answer in answers) == [False, False, True]


async def test_a_code_of_one_login_does_not_finish_another(tmp_path, provider):
    """A code that was stolen on its way back is worth nothing: its PKCE verifier and nonce are another login's."""
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "ada", "ada@alpha.example")
        victims, thiefs = await start(s), await start(s)
        stolen = (await provider.agree(victims.authorization_uri, "ada"))["code"]
        assert reason(await refused(finish(s, thiefs, stolen))) == "LOGIN_FAILED"
        assert reason(await refused(finish(s, thiefs, stolen, code_login_id="never begun"))) == "LOGIN_FAILED"


async def test_a_login_that_takes_too_long_is_over(tmp_path, provider):
    clock = Clock()
    async with server(tmp_path, clock=clock, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "ada", "ada@alpha.example")
        begun = await start(s)
        code = (await provider.agree(begun.authorization_uri, "ada"))["code"]
        clock.ahead += timedelta(minutes=10)
        assert reason(await refused(finish(s, begun, code))) == "LOGIN_FAILED"


async def test_the_browser_is_sent_with_a_challenge_and_a_nonce(tmp_path, provider):
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        begun = [await start(s) for _ in range(2)]
        sent = [parse_qs(urlsplit(each.authorization_uri).query) for each in begun]
        assert {each["code_challenge_method"][0] for each in sent} == {"S256"}
        for name in ("state", "nonce", "code_challenge"):
            assert sent[0][name] != sent[1][name]


async def test_the_browser_comes_back_to_its_own_machine_or_where_the_operator_says(tmp_path, provider):
    portal = "https://portal.example/callback"
    async with server(tmp_path, oidc_redirect_uris=portal, **provider.settings(tmp_path)) as s:
        await start(s, portal)
        error = await refused(s.auth.StartCodeLogin(auth.StartCodeLoginRequest(redirect_uri="https://evil.example/")))
        assert (reason(error), error.violations[0][0]) == ("INVALID_FIELD", "redirect_uri")


async def test_a_second_factor_is_the_providers_business(tmp_path, provider):
    async with server(tmp_path, totp="required", **provider.settings(tmp_path)) as s:
        await s.root()
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        s.users.clear()
        s.users["root@hub"] = await s.log_in("root@hub", *await _ids(s))
        await user_with_mail(s, "ada", "ada@alpha.example")
    async with server(tmp_path, totp="required", **provider.settings(tmp_path)) as s:
        assert (await me(s, await (await come(s, provider, "ada")))).caller == options.CALLER_USER


async def _ids(s):
    tokens = (await login(s, "root@hub")).tokens
    who = await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=bearer(tokens.access_token))
    return who.user_id, who.organization_account_id


# ---- on another device ---------------------------------------------------------------------------------------------


async def test_somebody_agrees_on_another_device(tmp_path, provider):
    clock = Clock()
    async with server(tmp_path, clock=clock, **provider.settings(tmp_path)) as s:
        ada = await user_with_mail(s, "ada", "ada@alpha.example")
        begun = await s.auth.StartDeviceLogin(auth.StartDeviceLoginRequest())
        assert begun.user_code in begun.verification_uri_complete
        wait = auth.FinishDeviceLoginRequest(device_login_id=begun.device_login_id)
        error = await refused(s.auth.FinishDeviceLogin(wait))
        assert (reason(error), int(error.metadata["retry_after_seconds"])) == ("LOGIN_PENDING", begun.interval_seconds)
        await provider.agree_on_a_device(begun.verification_uri_complete, "ada")
        assert reason(await refused(s.auth.FinishDeviceLogin(wait))) == "LOGIN_PENDING", "the provider is not asked yet"
        clock.ahead += timedelta(seconds=begun.interval_seconds)
        assert (await me(s, await s.auth.FinishDeviceLogin(wait))).user_id == ada.user_id
        assert reason(await refused(s.auth.FinishDeviceLogin(wait))) == "LOGIN_FAILED"


async def test_what_the_person_types_or_guesses_gives_no_tokens(tmp_path, provider):
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "ada", "ada@alpha.example")
        begun = await s.auth.StartDeviceLogin(auth.StartDeviceLoginRequest())
        await provider.agree_on_a_device(begun.verification_uri_complete, "ada")
        for guess in (begun.user_code, "x", (await start(s)).code_login_id):
            call = s.auth.FinishDeviceLogin(auth.FinishDeviceLoginRequest(device_login_id=guess))
            assert reason(await refused(call)) == "LOGIN_FAILED"


@pytest.mark.both_databases
async def test_of_two_who_finish_one_login_one_gets_in(tmp_path, provider, monkeypatch):
    """Also at a provider that redeems a device's code twice."""
    clock = Clock()
    asked = asyncio.Barrier(2)

    async def always(_provider, _device_code):
        await asked.wait()
        return oidc.Identity(provider.issuer, "ada", "ada@alpha.example")

    monkeypatch.setattr(oidc.Provider, "redeem_device", always)
    async with server(tmp_path, clock=clock, **provider.settings(tmp_path)) as s:
        await user_with_mail(s, "ada", "ada@alpha.example")
        begun = await s.auth.StartDeviceLogin(auth.StartDeviceLoginRequest())
        request = auth.FinishDeviceLoginRequest(device_login_id=begun.device_login_id)
        first = asyncio.ensure_future(s.auth.FinishDeviceLogin(request))
        await until(lambda: asked.n_waiting)
        clock.ahead += timedelta(seconds=begun.interval_seconds)
        answers = await asyncio.gather(first, s.auth.FinishDeviceLogin(request), return_exceptions=True)
        assert sorted(isinstance(answer, auth.FinishDeviceLoginResponse) for answer in answers) == [False, True]


# ---- secrets, and providers that are not there ---------------------------------------------------------------------


async def test_what_finishes_a_login_is_not_stored_in_the_open(tmp_path, provider):
    async with server(tmp_path, **provider.settings(tmp_path)) as s:
        begun = await start(s)
        nonce = parse_qs(urlsplit(begun.authorization_uri).query)["nonce"][0]
        device = await s.auth.StartDeviceLogin(auth.StartDeviceLoginRequest())
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not [
        secret
        for secret in (begun.state, begun.code_login_id, nonce, device.device_login_id)
        if secret.encode() in stored
    ]


async def test_an_id_token_counts_only_as_the_provider_has_signed_it(tmp_path, provider, monkeypatch):
    """Forged, for somebody else, of another provider, of another login, too old: whatever is wrong with it, nobody gets in."""
    checked = oidc.Provider(Config(**provider.settings(tmp_path)), utc_now)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = {
        "iss": provider.issuer,
        "sub": "ada",
        "aud": CLIENT_ID,
        "exp": utc_now() + timedelta(minutes=5),
        "iat": utc_now(),
        "nonce": "n",
        "email": "ada@alpha.example",
        "email_verified": True,
    }
    async with checked._client() as client:
        assert checked._keys is None
        forged = jwt.encode(good, key, algorithm="RS256", headers={"kid": "forged"})
        with pytest.raises(oidc.Refused):
            await checked._verified(client, forged, "n")
        found: jwt.PyJWKSet = checked._keys  # type: ignore[assignment]
        theirs = found.keys[0]
        as_theirs = jwt.encode(good, key, algorithm="RS256", headers={"kid": theirs.key_id})
        unsigned = jwt.encode(good, "", algorithm="none", headers={"kid": theirs.key_id})
        for token in (as_theirs, unsigned, "", "a.b.c"):
            with pytest.raises(oidc.Refused):
                await checked._verified(client, token, "n")
        # From here on with a provider whose key we have.
        ours = jwt.PyJWK.from_json(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        monkeypatch.setattr(oidc, "_find", lambda _keys, _key_id: ours)
        sign = lambda **changes: jwt.encode(good | changes, key, algorithm="RS256")  # noqa: E731
        assert (await checked._verified(client, sign(), "n"))["sub"] == "ada"
        for changes in (
            {"iss": "https://evil.example"},
            {"aud": "another"},
            {"aud": ["another"]},
            {"azp": "another"},
            {"aud": [CLIENT_ID, "another"]},
            {"aud": [CLIENT_ID, "another"], "azp": "another"},
            {"exp": utc_now() - timedelta(minutes=5)},
            {"nonce": "another"},
            {"nonce": ""},
        ):
            with pytest.raises(oidc.Refused):
                await checked._verified(client, sign(**changes), "n")
        symmetric = jwt.encode(good, "a secret that is long enough for HS256", algorithm="HS256")
        with pytest.raises(oidc.Refused):
            await checked._verified(client, symmetric, "n")


async def test_a_provider_that_calls_itself_otherwise_is_not_believed(tmp_path, provider):
    settings = provider.settings(tmp_path) | {"oidc_issuer": provider.issuer.replace("127.0.0.1", "localhost")}
    async with server(tmp_path, **settings) as s:
        call = s.auth.StartCodeLogin(auth.StartCodeLoginRequest(redirect_uri=CALLBACK))
        assert reason(await refused(call)) == "PROVIDER_UNREACHABLE"


async def test_a_provider_that_is_down_keeps_nobody_from_his_password(tmp_path):
    async with server(tmp_path, oidc_issuer="http://127.0.0.1:1", oidc_client_id=CLIENT_ID) as s:
        call = s.auth.StartCodeLogin(auth.StartCodeLoginRequest(redirect_uri=CALLBACK))
        assert reason(await refused(call)) == "PROVIDER_UNREACHABLE"
        assert reason(await refused(s.auth.StartDeviceLogin(auth.StartDeviceLoginRequest()))) == "PROVIDER_UNREACHABLE"
        await s.root()


async def test_without_a_provider_people_are_told_so(tmp_path):
    async with server(tmp_path) as s:
        for call in (
            s.auth.StartCodeLogin(auth.StartCodeLoginRequest(redirect_uri=CALLBACK)),
            s.auth.StartDeviceLogin(auth.StartDeviceLoginRequest()),
            finish(s, auth.StartCodeLoginResponse(code_login_id="x", state="y"), "z"),
            s.auth.FinishDeviceLogin(auth.FinishDeviceLoginRequest(device_login_id="x")),
        ):
            assert reason(await refused(call)) == "NOT_CONFIGURED"


@pytest.mark.parametrize("issuer", ["http://id.example", "id.example", "ftp://id.example"])
def test_a_provider_without_tls_is_refused_at_the_start(issuer):
    with pytest.raises(FolkmootError):
        Config(oidc_issuer=issuer, oidc_client_id=CLIENT_ID)
