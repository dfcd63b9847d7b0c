"""What holds for every test."""

from hypothesis import HealthCheck, settings

from tests.postgresql import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]

# How long an example takes says how busy the machine is, and must not fail a test.
settings.register_profile(
    "zmesh", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("zmesh")
