"""The client for scripts and notebooks: the same as `AsyncClient`, without `await`.

Every method here is made from its asynchronous one; a test compares the two surfaces, so that they can't drift apart.
"""

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from folkmoot.client.admin.aio import Source
from folkmoot.client.admin.blocking import ServerFacade
from folkmoot.client.aio import AsyncClient, Collaboration, Organization
from folkmoot.client.algorithms import AsyncAlgorithms
from folkmoot.client.data_sessions import AsyncSession, AsyncSessions, SessionInfo
from folkmoot.client.governing import AsyncGovernance
from folkmoot.client.logins import Credentials, TotpCode
from folkmoot.client.loop import blocking, iterating, run
from folkmoot.client.rekeying import AsyncKeys
from folkmoot.client.task import AsyncTask, RunStatus, TaskState
from folkmoot.client.tasks import AsyncTasks
from folkmoot.client.vault import AsyncVault
from folkmoot.transport.heads import MAX_HEAD_AGE
from folkmoot.v1.task_pb2 import TaskSpec

if TYPE_CHECKING:
    from folkmoot.client.admin.sync import Studies


class Task:
    """A task that exists. Made by `tasks.create` and `tasks.get`."""

    def __init__(self, core: AsyncTask) -> None:
        self._core = core

    @property
    def id(self) -> str:
        """The task's id."""
        return self._core.id

    @property
    def job_id(self) -> str:
        """The job: the id of its first task."""
        return self._core.job_id

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was signed: what later tasks of the job refer to."""
        return self._core.digest

    @property
    def name(self) -> str:
        """A few words for people."""
        return self._core.name

    @property
    def spec(self) -> TaskSpec:
        """All that was signed."""
        return self._core.spec

    @property
    def state(self) -> TaskState:
        """How the task stands, as the server tells it."""
        return run(self._core.state)

    @property
    def runs(self) -> tuple[RunStatus, ...]:
        """How far each organization is: proven for a run that has ended, as the server tells it before."""
        return run(self._core.runs)

    results = iterating(AsyncTask.results)
    wait = blocking(AsyncTask.wait)
    why = blocking(AsyncTask.why)
    cancel = blocking(AsyncTask.cancel)
    delete = blocking(AsyncTask.delete)
    delete_payloads = blocking(AsyncTask.delete_payloads)
    logs = iterating(AsyncTask.logs)
    repeat = blocking(AsyncTask.repeat, lambda core: Task(core))  # noqa: PLW0108 - Task is being made here


class Tasks:
    """The tasks of one collaboration."""

    def __init__(self, core: AsyncTasks) -> None:
        self._core = core

    create = blocking(AsyncTasks.create, Task)
    check = blocking(AsyncTasks.check)
    get = blocking(AsyncTasks.get, Task)
    list = blocking(AsyncTasks.list)


class Session:
    """A session that exists. Made by `sessions.create`, `sessions.get` and `sessions.list`."""

    def __init__(self, core: AsyncSession) -> None:
        self._core = core

    @property
    def info(self) -> SessionInfo:
        """The session, as the server told it."""
        return self._core.info

    @property
    def id(self) -> str:
        """The session's id."""
        return self._core.id

    @property
    def name(self) -> str:
        """Its name."""
        return self._core.name

    dataframes = blocking(AsyncSession.dataframes)
    delete_dataframe = blocking(AsyncSession.delete_dataframe)


class Sessions:
    """The sessions of one collaboration. `session` is a session's name or id, or one that was made or read here.

    One that was made or read here is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, core: AsyncSessions) -> None:
        self._core = core

    create = blocking(AsyncSessions.create, Session)
    get = blocking(AsyncSessions.get, Session)
    update = blocking(AsyncSessions.update, Session)
    delete = blocking(AsyncSessions.delete)

    list = iterating(AsyncSessions.list, Session)


class Algorithms:
    """The algorithms of one collaboration. Who only reads needs no governance key; without one, the others raise KeyMismatch."""

    def __init__(self, core: AsyncAlgorithms) -> None:
        self._core = core

    list = blocking(AsyncAlgorithms.list)
    describe = blocking(AsyncAlgorithms.describe)
    propose = blocking(AsyncAlgorithms.propose)
    vote = blocking(AsyncAlgorithms.vote)
    revoke = blocking(AsyncAlgorithms.revoke)


class Governance:
    """The decisions of one collaboration. Who only reads needs no governance key; without one, the others raise KeyMismatch."""

    def __init__(self, core: AsyncGovernance) -> None:
        self._core = core

    requests = blocking(AsyncGovernance.requests)
    removals = blocking(AsyncGovernance.removals)
    former_members = blocking(AsyncGovernance.former_members)
    log = blocking(AsyncGovernance.log)
    vote = blocking(AsyncGovernance.vote)
    remove = blocking(AsyncGovernance.remove)
    leave = blocking(AsyncGovernance.leave)
    invite_node = blocking(AsyncGovernance.invite_node)
    node_attempts = blocking(AsyncGovernance.node_attempts)
    approve_node = blocking(AsyncGovernance.approve_node)
    revoke_node = blocking(AsyncGovernance.revoke_node)


class Keys:
    """The organization's key: its files, and what the ledger shows. Only `standing` does without the governance key.

    No key is ever overwritten: what a new one takes the place of is kept beside it, and opens what was sealed to it.
    """

    def __init__(self, core: AsyncKeys) -> None:
        self._core = core

    standing = blocking(AsyncKeys.standing)
    publish = blocking(AsyncKeys.publish)
    rotate = blocking(AsyncKeys.rotate)
    revoke = blocking(AsyncKeys.revoke)


class Vault:
    """The own organization's keys in the vault. Secrets are those of `generate_secret`, or at least six words of Folkmoot's list.

    Raises VaultSecretWeak and VaultSecretWrong for a secret that is none or is mistyped, before anything is done with it.
    """

    def __init__(self, core: AsyncVault) -> None:
        self._core = core

    put = blocking(AsyncVault.put)
    get = blocking(AsyncVault.get)
    list = blocking(AsyncVault.list)
    rewrap = blocking(AsyncVault.rewrap)


class Client(ServerFacade):
    """A researcher's access to one collaboration, and to the server where it meets (see `ServerClient`, also for ways to log in).

        client = Client("lung@<fingerprint>", server="localhost:7443", certificate_authority="ca.pem", username="ada",
                        password="...", organization_key="organization.pem")
        task = client.tasks.create(image=..., function="average", organizations=["Alpha"], arguments={"column": "age"})
        for result in task.results():
            print(result.organization, result.value)

    Nothing is sent before the first use; that logs in, fetches and verifies the ledger, and compares the organization's key with it.
    `encryption` ("sealed" or "plain"): what the ledger must say, ENCRYPTION_DISAGREES if it says otherwise. `max_head_age`: when no other
    member has shown for so long that the ledger is the newest, no tasks are made (LEDGER_STALE). `traces`: an OpenTelemetry collector that
    hears of tasks, http://host:4317; with `traces_one_in` of one job in so many, the same that server and nodes choose. Raises FINGERPRINT_MISSING for a collaboration without its fingerprint, KEY_MISMATCH for a key file that can't be read.
    """

    def __init__(
        self,
        collaboration: str,
        *,
        server: str,
        username: str = "",
        password: str = "",
        totp_code: TotpCode | None = None,
        api_key: str = "",
        login: Credentials | None = None,
        certificate_authority: Source | None = None,
        organization_key: Source | None = None,
        organization_key_passphrase: str | None = None,
        governance_key: Source | None = None,
        governance_key_passphrase: str | None = None,
        state_directory: Source | None = None,
        insecure: bool = False,
        encryption: str | None = None,
        max_head_age: timedelta = MAX_HEAD_AGE,
        traces: str = "",
        traces_one_in: int = 1,
    ) -> None:
        core = AsyncClient(
            collaboration,
            server=server,
            username=username,
            password=password,
            totp_code=totp_code,
            api_key=api_key,
            login=login,
            certificate_authority=certificate_authority,
            organization_key=organization_key,
            organization_key_passphrase=organization_key_passphrase,
            governance_key=governance_key,
            governance_key_passphrase=governance_key_passphrase,
            state_directory=state_directory,
            insecure=insecure,
            encryption=encryption,
            max_head_age=max_head_age,
            traces=traces,
            traces_one_in=traces_one_in,
        )
        super().__init__(core)
        self._client = core
        self.algorithms = Algorithms(core.algorithms)
        self.governance = Governance(core.governance)
        self.keys = Keys(core.keys)
        self.sessions = Sessions(core.sessions)
        self.tasks = Tasks(core.tasks)
        self.vault = Vault(core.vault)

    @cached_property
    def studies(self) -> "Studies":
        """The collaboration's studies."""
        from folkmoot.client.admin.sync import Studies

        return Studies(self._client.studies)

    @property
    def organizations(self) -> tuple[Organization, ...]:
        """The members, by the verified ledger, by name."""
        return run(self._client.organizations)

    @property
    def collaboration(self) -> Collaboration:
        """The collaboration, by the verified ledger."""
        return run(self._client.collaboration)

    nodes = blocking(AsyncClient.nodes)
    export_proof = blocking(AsyncClient.export_proof)
