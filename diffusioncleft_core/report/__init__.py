"""From report.json to tables, plots and pages."""
