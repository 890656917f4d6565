"""What each compression does to a package, in a module called as the method: see `sdbuild.compression`."""
