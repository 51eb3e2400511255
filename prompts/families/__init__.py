"""The model families: to add one, add a module with one `Dialect`. Each literal names its source."""
