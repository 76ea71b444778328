import pytest

import metrics_reference as reference


@pytest.fixture
def case(request):
    return reference.require(request.param)
