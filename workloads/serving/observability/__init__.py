"""What watches a server: alert rules for Prometheus, a dashboard for Grafana."""
