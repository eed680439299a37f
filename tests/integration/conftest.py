"""The broker of one's own, made once for all tests that stop, kill or starve it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker_node import BrokerNode, private_node
from tests.queues import NodeQueues


@pytest.fixture(scope="session")
def only_node() -> Iterator[BrokerNode]:
    try:
        node = private_node()
    except FileNotFoundError as missing:
        pytest.fail(str(missing), pytrace=False)
    with node:
        yield node


@pytest.fixture
def node(only_node: BrokerNode) -> BrokerNode:
    """Up, whatever the test before did to it."""
    only_node.start()
    return only_node


@pytest.fixture
def node_queues(node: BrokerNode) -> Iterator[NodeQueues]:
    with NodeQueues(node) as queues:
        yield queues
