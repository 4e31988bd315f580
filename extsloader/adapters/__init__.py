"""One kernel interface or tool each. They carry out orders and decide nothing."""
