"""Where families meet agents: command line, configuration, report and results."""
