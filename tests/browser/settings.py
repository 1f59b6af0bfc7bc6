"""The settings of the site that browsers visit: those of all tests, with a strict policy and files for the pages."""

from tests.settings import *  # noqa: F403
from tests.settings import MIDDLEWARE as _MIDDLEWARE

ROOT_URLCONF = "tests.browser.urls"
MIDDLEWARE = ["tests.browser.policy.strict_policy", *_MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
