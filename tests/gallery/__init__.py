"""An app of a project, with every kind of file field."""
