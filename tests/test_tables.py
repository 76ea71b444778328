from dataclasses import replace

import pytest

from actioncast.published import CELLS, FROM_LABELS, UNVERIFIED, published
from actioncast.tables import Table, number, result_table, short, with_published
from test_passport import RESULT

TABLE = Table(("", "0.2/0.1", "mean"), (("futr", "37.01", "20.50"), ("n-gram", "-", "9.00")))


def test_columns_are_aligned():
    assert TABLE.plain().splitlines() == [
        "        0.2/0.1   mean",
        "----------------------",
        "futr      37.01  20.50",
        "n-gram        -   9.00",
    ]


def test_markdown_aligns_numbers_on_the_right():
    assert TABLE.markdown().splitlines() == [
        "|  | 0.2/0.1 | mean |",
        "| --- | ---: | ---: |",
        "| futr | 37.01 | 20.50 |",
        "| n-gram | - | 9.00 |",
    ]


def test_a_result_is_a_row():
    table = result_table({"futr": RESULT})
    assert table.header == ("", "0.2/0.1", "mean")
    assert table.rows == (("futr", "37.01", "20.50"),)


def test_columns_can_be_chosen_and_missing_ones_are_dashes():
    table = result_table({"futr": RESULT}, ["mean", "moc 0.3/0.5"])
    assert table.header == ("", "mean", "0.3/0.5")
    assert table.rows == (("futr", "20.50", "-"),)


def test_what_differs_gets_a_column():
    other = replace(RESULT, passport=replace(RESULT.passport, splits=("1",)))
    table = result_table({"a": RESULT, "b": other}, ["mean"], ["splits"])
    assert table.header == ("", "splits", "mean")
    assert table.rows == (("a", "1, 2", "20.50"), ("b", "1", "20.50"))


def test_numbers_have_two_decimals():
    assert [number(value) for value in (1.005, 0.0, 100, None, float("nan"))] == [
        "1.00",
        "0.00",
        "100.00",
        "-",
        "-",
    ]
    assert [short(n) for n in ("moc 0.2/0.1", "mof 0.2/0.1", "mof", "f1@10")] == [
        "0.2/0.1",
        "0.2/0.1",
        "mof",
        "f1@10",
    ]


def test_published_rows_stand_among_ours_in_order_and_are_marked():
    ours = [
        replace(RESULT, total=dict.fromkeys(CELLS, value) | {"mean": value}) for value in (5, 99)
    ]
    names = dict(zip(("weak", "strong"), ours, strict=True))
    table = result_table(names, [*CELLS, "mean"])
    rows = published("50salads")
    both = with_published(table, ours, rows, CELLS)
    assert both.header == table.header
    assert [row[0] for row in both.rows][:: len(both.rows) - 1] == ["weak", "strong"]
    assert len(both.rows) == len(rows) + 2
    means = [float(row[-1]) for row in both.rows]
    assert means == sorted(means)
    assert all(UNVERIFIED in row[0] for row in both.rows[1:-1])
    assert {len(row) for row in both.rows} == {10}


def test_a_published_row_has_every_cell_and_its_mean():
    assert CELLS[0] == "moc 0.2/0.1"
    assert CELLS[-1] == "moc 0.3/0.5"
    for row in FROM_LABELS:
        assert tuple(row.cells) == CELLS
        for alpha in ("0.2", "0.3"):  # what is further ahead is harder in every published row
            scores = [value for name, value in row.cells.items() if f"moc {alpha}/" in name]
            assert scores == sorted(scores, reverse=True)
    rnn = next(row for row in published("breakfast") if row.method == "RNN")
    assert rnn.mean == pytest.approx(49.355)
    assert {row.dataset for row in FROM_LABELS} == {"breakfast", "50salads"}
