"""What holds for the tests of every package."""

from hypothesis import settings

# Tests assert no timing, and hypothesis's deadline would: that the machine was busy is no bug of the code under test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
