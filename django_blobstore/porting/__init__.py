"""The way in and out: whole trees of files become objects, and objects files that anybody can verify."""

from __future__ import annotations

from django_blobstore.porting.exporting import DirectoryExport, Export, ExportReport, TarExport, export_objects
from django_blobstore.porting.importing import Importer, ImportReport
from django_blobstore.porting.sources import (
    Entry,
    files_of_directory,
    files_of_export,
    files_of_field,
    files_of_juju,
    files_of_storage,
)

__all__ = [
    "DirectoryExport",
    "Entry",
    "Export",
    "ExportReport",
    "ImportReport",
    "Importer",
    "TarExport",
    "export_objects",
    "files_of_directory",
    "files_of_export",
    "files_of_field",
    "files_of_juju",
    "files_of_storage",
]
