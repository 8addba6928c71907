"""The page: all results as one HTML file that needs nothing else, for people to read."""

from hashrobust.reports.page.write import check_place, write_page

__all__ = ["check_place", "write_page"]
