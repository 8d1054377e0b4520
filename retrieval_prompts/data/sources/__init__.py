"""What people have (tables, folders of files, logs of queries and clicks) made into a data folder in BEIR's layout."""
