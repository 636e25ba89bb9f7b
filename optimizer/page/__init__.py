"""The parts of a report's page; `report_html.py` puts them together."""
