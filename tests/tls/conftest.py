"""What the tests of TLS share."""

from __future__ import annotations

import pytest

from tests.harness.certificates import Certificates, make_certificates


@pytest.fixture(scope="package")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))
