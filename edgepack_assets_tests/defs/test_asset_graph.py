"""Users' instances, sensors' cursors and stored events know the graph by its names: it changes only on purpose."""

from __future__ import annotations

from edgepack_assets_tests.defs import asset_graph


def test_the_graph_is_the_recorded_one() -> None:
    """If the change is meant: `python -m edgepack_assets_tests.defs.asset_graph` records it, and git shows it."""
    assert asset_graph.render() == asset_graph.SNAPSHOT.read_text()
