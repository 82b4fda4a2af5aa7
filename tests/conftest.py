"""For all tests: what holds does so on a busy machine too."""

from hypothesis import settings

settings.register_profile("whatever the machine does besides", deadline=None)
settings.load_profile("whatever the machine does besides")
