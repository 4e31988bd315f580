"""Control groups of version 1 and 2 behind one port; `factory` picks."""
