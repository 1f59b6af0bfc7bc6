"""How an ASGI server such as uvicorn reaches the example project."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

# The package can be imported from here on.
django_application = get_asgi_application()

from django_blobstore.rest.asgi import answering_full_disk  # noqa: E402

application = answering_full_disk(django_application)
