"""What a search has found so far, in a database that many machines can share: Optuna's study, and who is at what.

Optuna keeps the study by its own tables (``optuna-dashboard URL`` shows it). A point enters it once it is finished, in
one transaction, so no half of one is ever seen; Optuna's number says when that was, the attribute ``imcsim`` which
point of the search it is and all that is known of it. Who evaluates what until then stands in a table of ours beside
them, whose primary key lets only one process have a point; the claims of a process that is gone or silent can be taken
over by one other.
"""

import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import optuna
import sqlalchemy as sql
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from imcsim.errors import ConfigError, DataError
from imcsim.sweep.lease import BEAT_S, LEASE_S, Owner, this_owner

NOTE = "imcsim"
"""Attribute of a trial with what Optuna has no place for; one, since each takes a millisecond to write."""

OPENINGS = 20
"""How often a database is opened where two processes make its tables at once, and one of them loses."""

LOCK_S = 60
"""How long to wait for a file that another process writes to."""

CLAIMS = sql.Table(
    "imcsim_claims",
    sql.MetaData(),
    sql.Column("study", sql.String(255), primary_key=True),
    sql.Column("point", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("name", sql.String(255), nullable=False),
    sql.Column("host", sql.String(255), nullable=False),
    sql.Column("pid", sql.Integer, nullable=False),
    sql.Column("started", sql.String(64), nullable=False),
    sql.Column("seen", sql.Double, nullable=False),
)


def directions_of(maximize: Sequence[bool]) -> list[StudyDirection]:
    """Return Optuna's word for each objective."""
    return [StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE for more in maximize]


class Ledger:
    """The study of one search in a database; several processes may have it open."""

    def __init__(self, url: str, name: str, maximize: Sequence[bool]):
        """Open the study, or begin it. Raises ConfigError where the database of *url* cannot be reached or used."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.url, self.name = url, name
        self._engine, storage = _opened(url)
        directions = directions_of(maximize)
        with self._told():
            self._study = optuna.create_study(
                storage=storage, study_name=name, directions=directions, load_if_exists=True
            )
        self._owner = this_owner(f"{this_owner(None).name}:{uuid.uuid4().hex[:8]}")
        self._stop = threading.Event()
        weakref.finalize(self, self._stop.set)
        self._heart = threading.Thread(
            target=_beat, args=(self._engine, self._owner.name, self._stop), name="imcsim-search-heart", daemon=True
        )
        self._heart.start()

    def close(self) -> None:
        """Give back what was claimed and not finished, and fall silent."""
        self._stop.set()
        self._heart.join()
        with suppress(SQLAlchemyError), self._engine.begin() as db:
            db.execute(CLAIMS.delete().where(CLAIMS.c.name == self._owner.name))
        self._engine.dispose()

    def trials(self) -> dict[int, FrozenTrial]:
        """Return every finished point by its number, in the order of numbers."""
        found: dict[int, FrozenTrial] = {}
        with self._told():
            for trial in self._study.get_trials(deepcopy=False):
                # A process that was thought dead may bring the same result late; the first one counts.
                if NOTE in trial.user_attrs and trial.state.is_finished():
                    found.setdefault(trial.user_attrs[NOTE]["point"], trial)
        return dict(sorted(found.items()))

    def claim(self, points: Sequence[int], n: int) -> list[int]:
        """Return up to *n* of *points* that are ours from now on: claimed by nobody, or by one who is gone."""
        ours: list[int] = []
        with self._told():
            with self._engine.connect() as db:
                of_study = CLAIMS.select().where(CLAIMS.c.study == self.name, CLAIMS.c.point.in_(points))
                held = {row.point: Owner(*row[2:]) for row in db.execute(of_study)}
            for point in points:
                if len(ours) == n:
                    break
                if self._insert(point) if point not in held else self._take_over(point, held[point]):
                    ours.append(point)
        return ours

    def _insert(self, point: int) -> bool:
        now = replace(self._owner, seen=time.time())
        try:
            with self._engine.begin() as db:
                db.execute(CLAIMS.insert().values(study=self.name, point=point, **vars(now)))
        except IntegrityError:  # somebody was quicker
            return False
        return True

    def _take_over(self, point: int, held: Owner) -> bool:
        if held.is_alive(time.time(), LEASE_S):
            return False
        is_as_read = (CLAIMS.c.study == self.name, CLAIMS.c.point == point, CLAIMS.c.name == held.name)
        now = replace(self._owner, seen=time.time())
        with self._engine.begin() as db:
            taken = db.execute(CLAIMS.update().where(*is_as_read, CLAIMS.c.seen == held.seen).values(**vars(now)))
        return taken.rowcount == 1

    def release(self, points: Sequence[int]) -> None:
        """Give claims back."""
        with self._told(), self._engine.begin() as db:
            mine = (CLAIMS.c.study == self.name, CLAIMS.c.point.in_(points), CLAIMS.c.name == self._owner.name)
            db.execute(CLAIMS.delete().where(*mine))

    def add(self, point: int, trial: FrozenTrial) -> None:
        """Take in a finished point; its claim ends."""
        with self._told():
            self._study.add_trial(trial)
        self.release([point])

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            raise DataError(
                f"search: storage: must stay there and be writable, got {_shown(self.url)} ({_reason(error)}); what "
                "was finished is kept, start again to go on"
            ) from None


def _opened(url: str) -> tuple[Engine, RDBStorage]:
    """Return the database of *url*, with all tables that are needed."""
    try:
        kind = sql.make_url(url).get_backend_name()
        options = {"connect_args": {"timeout": LOCK_S}} if kind == "sqlite" else {}
        engine = sql.create_engine(url, **options)
    except (SQLAlchemyError, ImportError) as error:
        raise _unusable(url, error) from None
    for i in range(OPENINGS):
        try:
            if kind == "sqlite":
                with engine.connect() as db:
                    if db.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
                        db.exec_driver_sql("PRAGMA journal_mode = WAL")
            CLAIMS.metadata.create_all(engine)
            return engine, RDBStorage(url, engine_kwargs=options)
        except (SQLAlchemyError, StorageInternalError, RuntimeError, AssertionError) as error:
            if i == OPENINGS - 1 or not _is_race(error):
                engine.dispose()
                raise _unusable(url, error) from None
            time.sleep(0.1)
    raise AssertionError("the last try returns or raises")


def _is_race(error: Exception) -> bool:
    """Whether it may be that another process makes the same tables just now."""
    told = f"{error} {error.__cause__}"
    return isinstance(error, AssertionError | IntegrityError) or any(
        sign in told for sign in ("already exists", "is locked", "UNIQUE", "duplicate")
    )


def _unusable(url: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"search: storage: must be a database that can be reached and used, got {_shown(url)} ({_reason(error)}); "
        "write sqlite:///FILE, or a URL of SQLAlchemy such as postgresql+psycopg://USER@HOST/NAME"
    )


def _shown(url: str) -> str:
    """Return *url* without its password."""
    try:
        return repr(sql.make_url(url).render_as_string(hide_password=True))
    except ArgumentError:
        return repr(url)


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    cause = getattr(cause, "orig", None) or cause
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")


def _beat(engine: Engine, name: str, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        with suppress(SQLAlchemyError), engine.begin() as db:  # much to do: the next beat may pass
            db.execute(CLAIMS.update().where(CLAIMS.c.name == name).values(seen=time.time()))
