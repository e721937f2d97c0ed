"""The page of a result: report.html."""
