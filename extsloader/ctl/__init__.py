"""`extsloaderctl`: what operators and scripts use."""
