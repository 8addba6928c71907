"""Published numbers, shipped with the package: each with its source, and with what that tells of its protocol.

The tables are the CSV files of this folder, their sources stand in the lines that begin with `#`. To add a table: one
CSV file, and one function that turns its rows into `Published` numbers.
"""

from __future__ import annotations

from hashrobust.registry import Registry
from hashrobust.reports.published._base import Asked, Fact, Published

__all__ = ["Asked", "Fact", "Published", "published"]

published: Registry[list[Published]] = Registry("published table", __name__)
