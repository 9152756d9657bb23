"""A package, since a library that is installed for the tests brings a package `tests` of its own."""
