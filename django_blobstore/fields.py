"""When the file of a row goes: with the row, when another takes its place, or with the transaction, never before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, cast

from django.apps import apps
from django.core.checks import CheckMessage, Warning
from django.core.files.storage import FileSystemStorage, Storage
from django.db import router, transaction
from django.db.models import F, FileField, ImageField, Model
from django.db.models.fields.files import (
    FieldFile,
    FileDescriptor,
    ImageFieldFile,
    ImageFileDescriptor,
)
from django.db.models.signals import class_prepared, post_delete, post_save, pre_delete, pre_save

from django_blobstore.blob_storage import BlobStorage


class BlobFieldFile(FieldFile):
    """The file of a row."""

    def delete(self, save: bool = True) -> None:
        """Take the file from the row; it goes when the row is saved, unless another row has it."""
        if not self:
            return
        if hasattr(self, "_file"):
            self.close()
            del self.file
        self.__dict__.pop("_dimensions_cache", None)
        self.name = None
        setattr(self.instance, self.field.attname, None)
        if save:
            self.instance.save()


class BlobImageFieldFile(BlobFieldFile, ImageFieldFile):
    """The image of a row."""


class _Remembering:
    """A descriptor that notes with which file a row was read."""

    def __set__(self, instance: Model, value: Any) -> None:
        field: BlobFileMixin = cast("Any", self).field
        if field.attname not in instance.__dict__:
            instance.__dict__[field.read_key] = _name(value)
        elif _is_name_of(instance.__dict__[field.attname], value):
            # As Django 6 does after each save; an image would be opened for its dimensions.
            return
        super().__set__(instance, value)  # type: ignore[misc]


class BlobDescriptor(_Remembering, FileDescriptor):
    """Gives a row its file."""


class BlobImageDescriptor(_Remembering, ImageFileDescriptor):
    """Gives a row its image."""


class BlobFileMixin(FileField):
    """A file that belongs to its row, for any kind of FileField.

    It is released when its row is deleted, by whatever way Django tells of, and when the row is saved with another or
    none; not if another row has a file of that name, or it is the field's default. With a `BlobStorage` and rows in
    the catalog's database all of it comes and goes with the transaction, which each save has; with other storages files
    are deleted after the commit, and those of a transaction that is rolled back stay. A save does not touch a file that
    was not changed since the row was read, so it cannot bring back one that somebody else replaced.

    `QuerySet.update` and `bulk_update` release nothing. The column has an index, by which other rows are asked for
    the name; ``db_index=False`` leaves it out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("db_index", True)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("db_index", None)
        has_index: bool = cast("Any", self).db_index
        return name, path, args, kwargs if has_index else {**kwargs, "db_index": False}

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        return [*super().check(**kwargs), *self._check_transactions()]

    def contribute_to_class(self, cls: type[Model], name: str, **kwargs: Any) -> None:  # type: ignore[override]
        super().contribute_to_class(cls, name, **kwargs)
        if not cls._meta.abstract:
            cast("Any", cls).save_base = _in_one_transaction(cls.save_base)

    def pre_save(self, model_instance: Model, add: bool) -> Any:
        if not add and not self.is_changed(model_instance):
            return F(self.attname)
        return super().pre_save(model_instance, add)

    def is_changed(self, instance: Model) -> bool:
        """Tell whether `instance` has another file, or may have, than the row it was read from."""
        file = getattr(instance, self.attname)
        was_read = not instance._state.adding and self.read_key in instance.__dict__
        return not (was_read and file._committed and _name(file) == instance.__dict__[self.read_key])

    def note_replaced(self, instance: Model, using: str) -> None:
        """Keep in mind which file the row of `instance` has, if it has one."""
        if instance.pk is not None and self.is_changed(instance):
            self.note_in_row(instance, using)

    def note_in_row(self, instance: Model, using: str) -> None:
        """Keep in mind which file the row has, whatever `instance` says, and let nobody change it meanwhile."""
        key = getattr(instance, self.model._meta.pk.attname)
        row = self.model._base_manager.using(using).filter(pk=key).select_for_update()
        instance.__dict__[self.replaced_key] = row.values_list(self.attname, flat=True).first() or ""

    def release_replaced(self, instance: Model, using: str) -> None:
        """Release the file kept in mind, now that the row has another."""
        name = instance.__dict__.pop(self.replaced_key, "")
        if name and name != _name(getattr(instance, self.attname)):
            self.release(name, using)
        instance.__dict__[self.read_key] = _name(getattr(instance, self.attname))

    def release_deleted(self, instance: Model, using: str) -> None:
        """Release the file kept in mind, now that the row is gone."""
        self.release(instance.__dict__.pop(self.replaced_key, ""), using)

    def release(self, name: str, using: str) -> None:
        """Delete the file `name`, in the transaction or after it, unless a row has it."""
        if not name:
            return
        storage = self.storage
        is_used = partial(_is_used, storage, name)
        if isinstance(storage, BlobStorage) and storage.using == using:
            storage.release(name, is_used)
        else:
            # No partial: Django could not name it in its log.
            transaction.on_commit(lambda: _delete_unless(is_used, storage, name), using=using, robust=True)

    @property
    def read_key(self) -> str:
        return f"_{self.attname}_as_read"

    @property
    def replaced_key(self) -> str:
        return f"_{self.attname}_replaced"

    def _check_transactions(self) -> Iterator[CheckMessage]:
        if not isinstance(self.storage, BlobStorage):
            message = "The storage knows no transactions: the files of those that are rolled back stay."
            hint = "Give it a django_blobstore.storages.BlobStorage, or use Django's own field."
            yield Warning(message, hint=hint, obj=self, id="blobstore.W021")
        elif self.storage.using != router.db_for_write(self.model):
            message = "Its rows are in another database than the catalog: no transaction is of both."
            hint = "Have the router send 'django_blobstore' and this model to the same database."
            yield Warning(message, hint=hint, obj=self, id="blobstore.W022")


def file_fields() -> Iterator[FileField]:
    """Yield each column of the project that has names of files, Django's own fields too."""
    for model in apps.get_models(include_auto_created=True):
        if model._meta.managed and not model._meta.proxy:
            yield from (field for field in model._meta.local_concrete_fields if isinstance(field, FileField))


class BlobField(BlobFileMixin):
    """A FileField whose file belongs to its row; see `BlobFileMixin`."""

    attr_class = BlobFieldFile
    descriptor_class = BlobDescriptor


class BlobImageField(BlobFileMixin, ImageField):
    """An ImageField whose image belongs to its row; see `BlobFileMixin`."""

    attr_class = BlobImageFieldFile
    descriptor_class = BlobImageDescriptor


def _in_one_transaction(save_base: Callable[..., None]) -> Callable[..., None]:
    """Return a `save_base` that stores the new file, writes the row and releases the old file, or does nothing."""

    @wraps(save_base)
    def in_one_transaction(self: Model, *args: Any, using: str | None = None, **kwargs: Any) -> None:
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using, savepoint=False):
            save_base(self, *args, using=using, **kwargs)

    return in_one_transaction


def _watch(sender: type[Model], **_: Any) -> None:
    """Listen to what becomes of the rows of a model, which may be a proxy, that has such a field."""
    if any(_fields(sender._meta.concrete_fields)):
        pre_save.connect(_about_to_save, sender=sender)
        post_save.connect(_saved, sender=sender)
    if any(_own_fields(sender)):
        pre_delete.connect(_about_to_delete, sender=sender)
        post_delete.connect(_deleted, sender=sender)


def _about_to_save(sender: type[Model], instance: Model, using: str, raw: bool, update_fields: Any, **_: Any) -> None:
    for field in _fields(sender._meta.concrete_fields):
        if not raw and (update_fields is None or field.name in update_fields):
            field.note_replaced(instance, using)


def _saved(sender: type[Model], instance: Model, using: str, raw: bool, update_fields: Any, **_: Any) -> None:
    for field in _fields(sender._meta.concrete_fields):
        if not raw and (update_fields is None or field.name in update_fields):
            field.release_replaced(instance, using)


def _about_to_delete(sender: type[Model], instance: Model, using: str, **_: Any) -> None:
    for field in _own_fields(sender):
        field.note_in_row(instance, using)


def _deleted(sender: type[Model], instance: Model, using: str, **_: Any) -> None:
    for field in _own_fields(sender):
        field.release_deleted(instance, using)


def _own_fields(model: type[Model]) -> Iterator[BlobFileMixin]:
    """Yield the fields of the table of `model`; Django tells of the deletion of a parent's row itself."""
    concrete = model._meta.concrete_model
    return _fields(concrete._meta.local_concrete_fields if concrete else ())


def _fields(fields: Any) -> Iterator[BlobFileMixin]:
    return (field for field in fields if isinstance(field, BlobFileMixin))


def _is_used(storage: Storage, name: str) -> bool:
    """Tell whether a row of any model, or a default, has the file `name` of `storage`."""
    return any(_has(field, name) for field in _fields_on(storage))


def _fields_on(storage: Storage) -> Iterator[FileField]:
    return (field for field in file_fields() if _place(field.storage) == _place(storage))


def _place(storage: Storage) -> object:
    """Return what is equal for two storages of the same files, as far as can be known."""
    return storage.location if isinstance(storage, FileSystemStorage) else storage


def _has(field: FileField, name: str) -> bool:
    if field.has_default() and _name(field.get_default()) == name:
        return True
    rows = field.model._base_manager.using(router.db_for_write(field.model))
    return rows.filter(**{field.attname: name}).exists()


def _delete_unless(is_used: Callable[[], bool], storage: Storage, name: str) -> None:
    if not is_used():
        storage.delete(name)


def _is_name_of(file: Any, value: Any) -> bool:
    return isinstance(value, str) and getattr(file, "_committed", True) and _name(file) == value


def _name(value: Any) -> str:
    return str(getattr(value, "name", value) or "")


class_prepared.connect(_watch)
