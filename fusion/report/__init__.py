"""What `fusion plan` found, as a table, as JSON and as a page: three renderings of the same findings."""
