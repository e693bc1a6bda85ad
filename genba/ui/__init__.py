"""What people see: the command line and, later, a console in the browser."""
