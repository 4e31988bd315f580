"""LinuxKit image definitions, and the layout that LinuxKit makes of them."""
