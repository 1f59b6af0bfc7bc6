"""Models read by written-out SQL, for what each get and put asks: to compile it takes longer than to run it.

Signals, guards and everything that is asked less often stay with Django's querysets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import Query

from django_blobstore.models import Bucket, ManagedResource, Resource
from django_blobstore.namespaces import Namespace

M = TypeVar("M", bound=Model)


class Columns(Generic[M]):
    """The columns of `model`: as `sql` for a SELECT or RETURNING, and back from a row."""

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._fields = model._meta.concrete_fields
        self._names = [field.attname for field in self._fields]
        self._converters: dict[str, list[tuple[int, Callable[..., Any], Any]]] = {}
        self.sql = ", ".join(f'{model._meta.db_table}."{field.column}"' for field in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def model_from(self, using: str, row: Sequence[Any]) -> M:
        """Return the model whose columns are `row`, as the database `using` gave it."""
        connection = connections[using]
        values = list(row)
        for position, convert, column in self._conversions(connection):
            values[position] = convert(values[position], column, connection)
        return self._model.from_db(using, self._names, values)

    def _conversions(self, connection: BaseDatabaseWrapper) -> list[tuple[int, Callable[..., Any], Any]]:
        if connection.vendor not in self._converters:
            self._converters[connection.vendor] = [
                (position, convert, column)
                for position, field in enumerate(self._fields)
                for column in [field.get_col(self._model._meta.db_table)]
                for convert in [*connection.ops.get_db_converters(column), *field.get_db_converters(connection)]
            ]
        return self._converters[connection.vendor]


BUCKETS = Columns(Bucket)
OBJECTS = Columns(ManagedResource)
RESOURCES = Columns(Resource)


def read_bucket(using: str, key: UUID) -> Bucket | None:
    """Return the bucket with the primary key `key`."""
    value = Bucket._meta.pk.get_db_prep_value(key, connections[using])
    row = fetch(using, f"SELECT {BUCKETS.sql} FROM {_BUCKET} WHERE uuid = %s", [value])
    return BUCKETS.model_from(using, row) if row else None


def find_object(using: str, namespace: Namespace, path: str) -> ManagedResource | None:
    """Return the object at `path` with its resource and its bucket."""
    row = _object_row(using, namespace, path, _FIND_OBJECT)
    if row is None:
        return None
    managed = OBJECTS.model_from(using, row[: len(OBJECTS)])
    managed.resource = RESOURCES.model_from(using, row[len(OBJECTS) : -len(BUCKETS)])
    managed.bucket = BUCKETS.model_from(using, row[-len(BUCKETS) :]) if managed.bucket_id else None
    return managed


def lock_object(using: str, namespace: Namespace, path: str) -> ManagedResource | None:
    """Return the object at `path`, locked until the end of the transaction."""
    # Without a join: a row that changed while its lock was waited for would no longer match, and seem gone.
    lock = "FOR UPDATE" if connections[using].features.has_select_for_update else ""
    row = _object_row(using, namespace, path, f"SELECT {OBJECTS.sql} FROM {_OBJECT}", lock)
    return OBJECTS.model_from(using, row) if row else None


def delete_object(using: str, namespace: Namespace, path: str) -> ManagedResource | None:
    """Delete the object at `path` and return it; the caller counts."""
    row = _object_row(using, namespace, path, f"DELETE FROM {_OBJECT}", f"RETURNING {OBJECTS.sql}")
    return OBJECTS.model_from(using, row) if row else None


def insert(using: str, instance: Model) -> None:
    """Insert `instance` as ``save(force_insert=True)`` does, which is called where anybody listens to its signals."""
    model, connection = type(instance), connections[using]
    if any(signal.has_listeners(model) for signal in (pre_save, post_save)):
        instance.save(using=using, force_insert=True)
        return
    key = model._meta.pk
    fields = [field for field in model._meta.concrete_fields if field is not key or instance.pk is not None]
    placeholders: list[str] = []
    parameters: list[Any] = []
    for field in fields:
        sql, values = _written(field, field.pre_save(instance, add=True), connection)
        placeholders.append(sql)
        parameters += values
    columns = ", ".join(f'"{field.column}"' for field in fields)
    values_sql = f"({columns}) VALUES ({', '.join(placeholders)})"
    row = fetch(using, f'INSERT INTO {model._meta.db_table} {values_sql} RETURNING "{key.column}"', parameters)
    instance.pk = cast("Sequence[Any]", row)[0]
    instance._state.adding, instance._state.db = False, using


def _written(field: Field[Any, Any], value: Any, connection: BaseDatabaseWrapper) -> tuple[str, Sequence[Any]]:
    """Return the SQL of `value`, which may be an expression, and its parameters."""
    if not hasattr(value, "resolve_expression"):
        return "%s", [field.get_db_prep_save(value, connection)]
    compiler = Query(field.model).get_compiler(connection=connection)
    sql, parameters = compiler.compile(value.resolve_expression(compiler.query, for_save=True))
    return sql, parameters


def is_stored(using: str, scope: str, sha384: str) -> bool:
    """Whether a sound resource of `scope` has this hash."""
    sound = "path <> '' AND damaged_at IS NULL"
    sql = f"SELECT 1 FROM {_RESOURCE} WHERE scope = %s AND sha384 = %s AND {sound}"
    return fetch(using, sql, [scope, sha384]) is not None


def holder_condition(using: str, namespace: Namespace) -> tuple[str, object]:
    """Return the SQL condition of the rows in the bucket of `namespace`, or else of its user, and its one parameter."""
    if namespace.bucket_id is None:
        return 'bucket_id IS NULL AND "user" = %s', namespace.user
    return "bucket_id = %s", Bucket._meta.pk.get_db_prep_value(namespace.bucket_id, connections[using])


def fetch(using: str, sql: str, parameters: Sequence[Any]) -> Sequence[Any] | None:
    """Return the first row that `sql` gives."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        row: Sequence[Any] | None = cursor.fetchone()
        return row


def _object_row(using: str, namespace: Namespace, path: str, sql: str, end: str = "") -> Sequence[Any] | None:
    condition, key = holder_condition(using, namespace)
    where = f'WHERE {condition} AND "user" = %s AND {_OBJECT}.path = %s'
    return fetch(using, f"{sql} {where} {end}", [key, namespace.user, path])


_OBJECT = ManagedResource._meta.db_table
_RESOURCE = Resource._meta.db_table
_BUCKET = Bucket._meta.db_table
_FIND_OBJECT = (
    f"SELECT {OBJECTS.sql}, {RESOURCES.sql}, {BUCKETS.sql} FROM {_OBJECT}"
    f" JOIN {_RESOURCE} ON {_RESOURCE}.id = resource_id LEFT JOIN {_BUCKET} ON {_BUCKET}.uuid = bucket_id"
)
