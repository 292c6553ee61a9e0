"""Scores of chosen rows, of one call or of many, however query and key lie in memory."""

import pytest
import torch
from torch import Tensor

from sightline.lens.products import products, products_of_many


@pytest.mark.parametrize("rows", [0, 1, 2, 16])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("layout", ["batch, keys, heads", "batch, heads, keys"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_one_number_for_each_row_and_key(
    rows: int, group: int, layout: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, heads, keys, width = 3, 4, 7, 16
    query = torch.randn(batch, heads, rows, width, dtype=dtype)
    key = torch.randn(batch, keys, heads // group, width, dtype=dtype).transpose(1, 2)
    key = key if layout == "batch, keys, heads" else key.contiguous()
    expected = torch.einsum("bhrd,bhkd->bhrk", query.float(), key.repeat_interleave(group, 1).float())
    for least in (0, 2**30):  # one item at a time where that is quicker, or all together
        monkeypatch.setattr("sightline.lens.products._COPIED", least)
        torch.testing.assert_close(products(query, key), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(products(query, key, 0.5), expected / 2, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["heads side by side", "head by head"])
@pytest.mark.parametrize(("start", "count"), [(0, 1), (2, 3)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("large", [False, True])
def test_products_of_many_are_products_of_each(
    layout: str, start: int, count: int, groups: int, dtype: torch.dtype, large: bool, monkeypatch
) -> None:
    monkeypatch.setattr("sightline.lens.products._SMALL", 0 if large else 2**22)
    # as a GPU that sums in float32 has it
    monkeypatch.setattr("sightline.lens.products._sums_in_float32", lambda _: dtype == torch.float32)

    def tensor(heads: int, length: int) -> Tensor:
        made = torch.randn(3, length, heads, 8).to(dtype).transpose(1, 2)
        return made if layout == "heads side by side" else made.contiguous()

    for queries in (6, 9):
        many = [(tensor(4, queries), tensor(4 // groups, 7)) for _ in range(5)]
        expected = [products(query.narrow(2, start, count), key) for query, key in many]
        found = products_of_many(*zip(*many, strict=True), start, count)
        torch.testing.assert_close(torch.cat(found), torch.stack(expected), atol=1e-5, rtol=0)
