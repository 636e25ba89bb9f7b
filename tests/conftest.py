"""Settings of all tests."""

from hypothesis import settings

# A busy machine is slow at times: how long an example takes says nothing about it.
settings.register_profile("no deadline", settings(), deadline=None)
settings.load_profile("no deadline")
