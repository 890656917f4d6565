"""What commands share: their variables, messages without tracebacks, tables, and doit's side of a build."""
