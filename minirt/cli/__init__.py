"""The command line: click commands, tables, exit codes. It decides nothing."""
