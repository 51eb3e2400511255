"""The model families: to add one, add a module with one `Dialect`; literals name their source."""
